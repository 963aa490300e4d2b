//! The `cu*` entry points.
