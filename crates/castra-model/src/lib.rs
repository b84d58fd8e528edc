//! A scripted Anthropic Messages API on loopback.
