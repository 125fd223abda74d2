//! Which spans are seen at which step.
