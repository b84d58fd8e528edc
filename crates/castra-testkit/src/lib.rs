//! Dev-only: real-CLI harness, fake claude, contract suites.
