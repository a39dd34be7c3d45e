//! (empty room, filled next)
