//! Any octets as an envelope of the spool: none of ours, or kept as what reads as the same, whole and in part.

use crate::message::meta::Meta;

/// The first octet chooses the recipients that are moved, the rest is what was kept.
pub fn run(data: &[u8]) {
    let Some((&chosen, kept)) = data.split_first() else { return };
    let Some(meta) = Meta::decode(kept) else { return };
    assert_eq!(Meta::is_moved(kept), meta.flags.moved);
    let mut again = Vec::new();
    meta.encode(&mut again);
    assert_eq!(Meta::decode(&again).as_ref(), Some(&meta));
    let numbers: Vec<u16> = (0..meta.recipients.len() as u16).filter(|n| chosen >> (n % 8) & 1 == 1).collect();
    let wanted: Vec<_> = numbers.iter().map(|n| meta.recipients[usize::from(*n)].address.to_owned()).collect();
    let moved = meta.moved(&numbers);
    assert_eq!(moved.recipients.iter().map(|recipient| recipient.address).collect::<Vec<_>>(), wanted);
    assert!(moved.suppressed.iter().all(|(number, _)| usize::from(*number) < moved.recipients.len()));
    moved.encode(&mut again);
    assert_eq!(Meta::decode(&again), Some(moved));
}
