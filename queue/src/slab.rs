//! Values by small number, with the numbers used again.
//!
//! In chunks: to grow never moves what is there, so that no insertion costs more than another one, and no memory stands by
//! for a doubling that may not come.

const CHUNK: usize = 512;

#[derive(Debug)]
enum Slot<T> {
    Used(T),
    /// The next free slot.
    Free(u32),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    chunks: Vec<Vec<Slot<T>>>,
    free: u32,
}

const NONE: u32 = u32::MAX;

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), free: NONE }
    }
}

impl<T> Slab<T> {
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        let number = self.free;
        if let Some(slot) = self.slot_mut(number)
            && let Slot::Free(next) = *slot
        {
            *slot = Slot::Used(value);
            self.free = next;
            return number;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let before = (self.chunks.len() - 1) * CHUNK;
        let chunk = &mut self.chunks[before / CHUNK];
        chunk.push(Slot::Used(value));
        (before + chunk.len() - 1) as u32
    }

    fn slot_mut(&mut self, number: u32) -> Option<&mut Slot<T>> {
        self.chunks.get_mut(number as usize / CHUNK)?.get_mut(number as usize % CHUNK)
    }

    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        match self.chunks.get(number as usize / CHUNK)?.get(number as usize % CHUNK)? {
            Slot::Used(value) => Some(value),
            Slot::Free(_) => None,
        }
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        match self.slot_mut(number)? {
            Slot::Used(value) => Some(value),
            Slot::Free(_) => None,
        }
    }

    pub(crate) fn remove(&mut self, number: u32) -> Option<T> {
        let free = self.free;
        let slot = self.slot_mut(number)?;
        if matches!(slot, Slot::Free(_)) {
            return None;
        }
        let Slot::Used(value) = std::mem::replace(slot, Slot::Free(free)) else { return None };
        self.free = number;
        Some(value)
    }

    /// No value has a number as high as this.
    pub(crate) fn end(&self) -> u32 {
        self.chunks.last().map_or(0, |last| ((self.chunks.len() - 1) * CHUNK + last.len()) as u32)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let slots = self.chunks.iter().flatten().enumerate();
        slots.filter_map(|(number, slot)| match slot {
            Slot::Used(value) => Some((number as u32, value)),
            Slot::Free(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn numbers_name_one_value_each_and_are_used_again() {
        let mut slab = Slab::default();
        let mut model = BTreeMap::new();
        for round in 0_u32..5000 {
            if round % 3 == 2 {
                let number = *model.keys().nth(model.len() / 2).unwrap();
                assert_eq!(slab.remove(number), model.remove(&number));
                assert_eq!((slab.remove(number), slab.get(number)), (None, None));
            } else {
                assert_eq!(model.insert(slab.insert(round), round), None);
            }
        }
        assert_eq!(slab.iter().map(|(n, v)| (n, *v)).collect::<BTreeMap<_, _>>(), model);
        assert!(slab.chunks.len() <= model.len() / CHUNK + 2);
    }
}
