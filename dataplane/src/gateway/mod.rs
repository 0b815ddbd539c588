//! Application level gateways: protocols that announce their second connection inside the first.
//!
//! Pure parts here; the thread that carries packets between the packet path and these lives in the engine.

pub mod ftp;
pub mod rewrite;
pub mod segments;
pub mod sequence;
