//! All that castra knows of the Claude Code CLI, without I/O.
