//! `cw relay serve`: the relay, in the foreground.

use clap::Subcommand;

use crate::error::Result;

/// The relay that introduces nodes to each other.
#[derive(Subcommand, Clone, Debug)]
pub enum Relay {
    /// Run a relay.
    Serve(Box<crate::relay::Config>),
}

impl Relay {
    pub(crate) async fn run(self) -> Result<()> {
        match self {
            Self::Serve(config) => {
                crate::node::start_log();
                crate::relay::serve(*config).await
            }
        }
    }
}
