//! What the tests on the real kernel share.
