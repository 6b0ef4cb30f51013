//! How much passes on one stream, and what it takes of the processor, each end on a core of its
//! own; and what bounds that on this machine.

use anyhow::Result;

use crate::child::Pair;
use crate::cipher::{self, Cipher};
use crate::report::Samples;
use crate::way::Kind;
use crate::{calls, lines, rounds};

/// Bytes in a round.
const LENGTH: u64 = 256 << 20;
/// Where it takes longer.
const SHORT: u64 = 64 << 20;

#[derive(Default)]
pub struct Figures {
    pub gbits: Samples,
    pub near: Samples,
    pub far: Samples,
    /// Datagrams in a call of the system.
    batch: Samples,
}

/// Directly.
pub fn direct() -> Result<()> {
    let kinds = [Kind::Ours, Kind::Quinn, Kind::Iroh, Kind::Tcp];
    let (figures, cipher) = measure(&kinds, LENGTH)?;
    let [ours, quinn, iroh, tcp] = &figures;
    if let Some(ours) = ours {
        let of = |it: fn(&Figures) -> &Samples, of: &Option<Figures>| {
            of.as_ref().map(|of| it(of).clone())
        };
        let fast = [
            ("quinn", of(|it| &it.gbits, quinn), ">= 0.75 x"),
            ("iroh", of(|it| &it.gbits, iroh), ">= 1.3 x"),
            ("TCP", of(|it| &it.gbits, tcp), "reported"),
        ];
        lines("bulk, one stream", "Gbit/s", &ours.gbits, &fast);
        let near = [
            ("quinn", of(|it| &it.near, quinn), "<= 1.40 x"),
            ("iroh", of(|it| &it.near, iroh), "reported"),
            ("TCP", of(|it| &it.near, tcp), "reported"),
        ];
        lines("  cpu of who sends", "s/GiB", &ours.near, &near);
        let far = [
            ("quinn", of(|it| &it.far, quinn), "<= 1.40 x"),
            ("iroh", of(|it| &it.far, iroh), "reported"),
            ("TCP", of(|it| &it.far, tcp), "reported"),
        ];
        lines("  cpu of who receives", "s/GiB", &ours.far, &far);
        let none = [("-", None, ">= 30")];
        lines("  datagrams in a call", "", &ours.batch, &none);
        if let Some(quinn) = quinn {
            bounds(ours, quinn, &cipher);
        }
    }
    let kinds = [Kind::OursSingly, Kind::QuinnSingly];
    if let [Some(ours), Some(quinn)] = &measure(&kinds, SHORT)?.0 {
        let title = "bulk, no segmentation offload";
        let peers = [("quinn", Some(quinn.gbits.clone()), ">= 0.75 x")];
        lines(title, "Gbit/s", &ours.gbits, &peers);
    }
    Ok(())
}

/// What ours could be at best on this machine, and what that would be beside quinn.
fn bounds(ours: &Figures, quinn: &Figures, cipher: &Cipher) {
    let none = [("-", None, "reported")];
    lines("ring, one packet, seal", "ns", &cipher.seal, &none);
    lines("  open", "ns", &cipher.open, &none);
    let ends = [
        ("who sends", &ours.near, &quinn.near, &cipher.seal),
        ("who receives", &ours.far, &quinn.far, &cipher.open),
    ];
    for (end, ours, quinn, each) in ends {
        let bound = cipher::bound(quinn, each);
        let title = format!("  cpu of {end}");
        let peers = [("the bound", Some(bound.clone()), "reported")];
        lines(&title, "s/GiB", ours, &peers);
        let peers = [("quinn", Some(quinn.clone()), "reported")];
        lines("    the bound", "s/GiB", &bound, &peers);
    }
}

/// By the relays.
pub fn relayed() -> Result<()> {
    let [ours, iroh] = &measure(&[Kind::OursRelayed, Kind::IrohRelayed], SHORT)?.0;
    if let Some(ours) = ours {
        let theirs = iroh.as_ref().map(|iroh| iroh.gbits.clone());
        let peers = [("iroh", theirs, ">= 1.5 x")];
        lines("bulk by the relay", "Gbit/s", &ours.gbits, &peers);
    }
    Ok(())
}

/// All ways in turns, and what the second encryption takes meanwhile.
fn measure<const N: usize>(
    kinds: &[Kind; N],
    length: u64,
) -> Result<([Option<Figures>; N], Cipher)> {
    let mut cipher = Cipher::default();
    let mut pairs = calls::start(kinds)?;
    let mut figures = pairs
        .each_ref()
        .map(|pair| pair.as_ref().map(|_| Figures::default()));
    for pair in pairs.iter_mut().flatten() {
        pair.pin(0, 1)?;
        pair.near.ask(&format!("bulk {}", length / 4))?;
    }
    for _ in 0..rounds() {
        for (pair, figures) in pairs.iter_mut().zip(&mut figures) {
            if let (Some(pair), Some(figures)) = (pair, figures) {
                round(pair, length, figures)?;
            }
        }
        cipher.round()?;
    }
    Ok((figures, cipher))
}

/// One round of one way.
pub fn round(pair: &mut Pair, length: u64, figures: &mut Figures) -> Result<()> {
    let before = sent(pair)?;
    let bulk = pair.bulk(length)?;
    figures.gbits.number(bulk.gbits);
    figures.near.number(bulk.near);
    figures.far.number(bulk.far);
    if let (Some([datagrams, calls]), Some([datagrams_before, calls_before])) =
        (sent(pair)?, before)
    {
        let batch = (datagrams - datagrams_before) / (calls - calls_before);
        figures.batch.number(batch);
    }
    Ok(())
}

fn sent(pair: &mut Pair) -> Result<Option<[f64; 2]>> {
    Ok(match pair.kind {
        Kind::Ours => Some(pair.near.numbers("sent")?),
        _ => None,
    })
}
