//! What the examples share: the real CLI against the scripted model, in this process.

include!("setup.in");
