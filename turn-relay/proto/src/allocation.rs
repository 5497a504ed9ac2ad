//! What a client holds: relayed addresses, permissions, channels, and until when.

use std::net::SocketAddr;
use std::time::Duration;

use crate::auth::Identity;
use crate::channel::Channels;
use crate::command::{Family, ReservationId};
use crate::five_tuple::FiveTuple;
use crate::permission::Permissions;
use crate::quota::Place;
use crate::session::Traffic;
use crate::tcp::PeerConnections;

/// Names an allocation as long as it lives; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AllocationId {
    index: u32,
    generation: u32,
}

impl AllocationId {
    /// Its place among those that live, small: for tables of the shell.
    #[must_use]
    pub const fn index(self) -> usize {
        self.index as usize
    }

    /// As a number, which [`AllocationId::from_bits`] takes back.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    /// From a number; whether there is such an allocation is another question.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the lower half is meant")]
    pub const fn from_bits(bits: u64) -> Self {
        Self {
            index: bits as u32,
            generation: (bits >> 32) as u32,
        }
    }
}

/// An allocation.
#[derive(Debug)]
pub struct Allocation {
    /// Whose it is.
    pub client: FiveTuple,
    /// Who that is.
    pub identity: Identity,
    /// When it began.
    pub(crate) started: Duration,
    /// When it ends.
    pub expires: Duration,
    /// When that is looked at next: not later.
    pub(crate) scheduled: Duration,
    /// Relayed addresses, by family.
    pub(crate) relays: Relays,
    pub(crate) permissions: Permissions,
    pub(crate) channels: Channels,
    pub(crate) traffic: Traffic,
    pub(crate) state: State,
    pub(crate) place: Place,
    /// Connections with peers, if it is for such.
    pub(crate) tcp: Option<Box<PeerConnections>>,
    /// How often it has moved, if it may.
    pub(crate) moves: Option<u32>,
}

/// Whether its sockets are there.
#[derive(Debug)]
pub(crate) enum State {
    /// Sockets are being bound.
    Binding(Pending),
    /// The client has its answer, kept in case that was lost.
    Open {
        transaction: u128,
        response: Vec<u8>,
    },
}

/// A request that waits for its sockets.
#[derive(Debug)]
pub(crate) struct Pending {
    /// The request as received.
    pub(crate) request: Vec<u8>,
    /// Families that are not there yet.
    pub(crate) missing: usize,
    /// A family that could not be had although another could.
    pub(crate) failed: Option<Family>,
    pub(crate) lifetime: Duration,
    pub(crate) reservation: Option<ReservationId>,
}

/// At most one address of each family.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Relays {
    v4: Option<SocketAddr>,
    v6: Option<SocketAddr>,
}

impl Relays {
    pub(crate) const fn get(&self, family: Family) -> Option<SocketAddr> {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }

    pub(crate) const fn set(&mut self, family: Family, address: SocketAddr) {
        match family {
            Family::V4 => self.v4 = Some(address),
            Family::V6 => self.v6 = Some(address),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = SocketAddr> {
        self.v4.into_iter().chain(self.v6)
    }
}

/// All allocations, found in constant time by their id.
#[derive(Debug, Default)]
pub(crate) struct Allocations {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    allocation: Option<Box<Allocation>>,
}

impl Allocations {
    pub(crate) fn insert(&mut self, allocation: Allocation) -> AllocationId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 allocations")
        });
        let slot = &mut self.slots[index as usize];
        slot.allocation = Some(Box::new(allocation));
        AllocationId {
            index,
            generation: slot.generation,
        }
    }

    pub(crate) fn get(&self, id: AllocationId) -> Option<&Allocation> {
        let slot = self.slots.get(id.index as usize)?;
        slot.allocation
            .as_deref()
            .filter(|_| slot.generation == id.generation)
    }

    pub(crate) fn get_mut(&mut self, id: AllocationId) -> Option<&mut Allocation> {
        let slot = self.slots.get_mut(id.index as usize)?;
        let generation = slot.generation;
        slot.allocation
            .as_deref_mut()
            .filter(|_| generation == id.generation)
    }

    pub(crate) fn remove(&mut self, id: AllocationId) -> Option<Allocation> {
        self.get(id)?;
        let slot = &mut self.slots[id.index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.index);
        slot.allocation.take().map(|allocation| *allocation)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (AllocationId, &Allocation)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let id = AllocationId {
                index: u32::try_from(index).ok()?,
                generation: slot.generation,
            };
            slot.allocation
                .as_deref()
                .map(|allocation| (id, allocation))
        })
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Allocation> {
        let allocations = self.slots.iter_mut();
        allocations.filter_map(|slot| slot.allocation.as_deref_mut())
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}
