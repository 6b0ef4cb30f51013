//! Clients that other people wrote, against our relay. The tests are in
//! `tests/`; there is nothing else here.
