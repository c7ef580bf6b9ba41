//! Part of Hotfire.
