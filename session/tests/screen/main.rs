//! The law of the screen: for every byte at which a stream is cut, the restore
//! of the first part and then the second part show the same as the whole.

mod cases;
mod foreign;
mod judges;
mod law;
mod random;
