//! The HTTP upgrade in front of the protocol.
