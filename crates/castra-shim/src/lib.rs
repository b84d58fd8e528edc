//! The process that owns one claude and its record log; the guard beside it; the relay that starts them.
