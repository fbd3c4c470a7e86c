//! The room that a worker has left, and what tenants use.

use super::requirements::{Demand, Gpu, Offer};

/// What is free of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) cpu_milli: u64,
    pub(super) memory_bytes: u64,
    gpus: Vec<Device>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Device {
    gpu: Gpu,
    free_bytes: u64,
    users: u32,
}

/// What an execution has taken of a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    cpu_milli: u64,
    memory_bytes: u64,
    /// Devices by their place in the offer, each with the bytes that were taken.
    gpus: Vec<(usize, u64)>,
}

impl Taken {
    /// The devices, by their place in the offer.
    pub(super) fn devices(&self) -> Vec<u32> {
        self.gpus.iter().map(|(index, _)| u32::try_from(*index).unwrap_or(u32::MAX)).collect()
    }
}

impl Room {
    pub(super) fn of(offer: &Offer) -> Self {
        let device = |gpu: &Gpu| Device { gpu: gpu.clone(), free_bytes: gpu.vram_bytes, users: 0 };
        Self {
            cpu_milli: offer.cpu_milli,
            memory_bytes: offer.memory_bytes,
            gpus: offer.gpus.iter().map(device).collect(),
        }
    }

    /// What an execution would take, where there is room for it. Of the devices, the fullest that
    /// have room are taken, so that large executions find empty ones.
    pub(super) fn fit(&self, demand: &Demand) -> Option<Taken> {
        if demand.cpu_milli > self.cpu_milli || demand.memory_bytes > self.memory_bytes {
            return None;
        }
        let wanted = demand.gpus as usize;
        let mut fitting: Vec<(u64, usize)> = Vec::new();
        if wanted > 0 {
            let usable = self.gpus.iter().enumerate().filter(|(_, device)| device.takes(demand));
            fitting.extend(usable.map(|(index, device)| (device.free_bytes, index)));
            fitting.sort_unstable();
        }
        if fitting.len() < wanted {
            return None;
        }
        let bytes = |free: u64| if demand.vram_bytes == 0 { free } else { demand.vram_bytes };
        let gpus = fitting.iter().take(wanted).map(|(free, index)| (*index, bytes(*free)));
        let gpus = gpus.collect();
        Some(Taken { cpu_milli: demand.cpu_milli, memory_bytes: demand.memory_bytes, gpus })
    }

    pub(super) fn take(&mut self, taken: &Taken) {
        self.cpu_milli -= taken.cpu_milli;
        self.memory_bytes -= taken.memory_bytes;
        for (index, bytes) in &taken.gpus {
            if let Some(device) = self.gpus.get_mut(*index) {
                device.free_bytes -= bytes;
                device.users += 1;
            }
        }
    }

    pub(super) fn give_back(&mut self, taken: &Taken) {
        self.cpu_milli += taken.cpu_milli;
        self.memory_bytes += taken.memory_bytes;
        for (index, bytes) in &taken.gpus {
            if let Some(device) = self.gpus.get_mut(*index) {
                device.free_bytes += bytes;
                device.users -= 1;
            }
        }
    }

    /// How much has to become free before an execution fits: millionths of the demand, of the
    /// resource that lacks most.
    pub(super) fn shortfall(&self, demand: &Demand) -> u64 {
        let short = |need: u64, free: u64| share(need.saturating_sub(free), need);
        let idle = self.gpus.iter().filter(|device| device.takes(demand)).count() as u64;
        short(demand.cpu_milli, self.cpu_milli)
            .max(short(demand.memory_bytes, self.memory_bytes))
            .max(short(u64::from(demand.gpus), idle))
    }
}

impl Device {
    fn takes(&self, demand: &Demand) -> bool {
        let free = match demand.vram_bytes {
            0 => self.users == 0,
            bytes => self.free_bytes >= bytes,
        };
        free && demand.could_use(&self.gpu)
    }
}

/// Sums of what is used or offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    cpu_milli: u64,
    memory_bytes: u64,
    vram_bytes: u64,
}

impl Usage {
    pub(super) fn of(taken: &Taken) -> Self {
        let vram_bytes = taken.gpus.iter().map(|(_, bytes)| bytes).sum();
        Self { cpu_milli: taken.cpu_milli, memory_bytes: taken.memory_bytes, vram_bytes }
    }

    pub(super) fn offered(offer: &Offer) -> Self {
        let vram_bytes = offer.gpus.iter().map(|gpu| gpu.vram_bytes).sum();
        Self { cpu_milli: offer.cpu_milli, memory_bytes: offer.memory_bytes, vram_bytes }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.cpu_milli = self.cpu_milli.saturating_add(other.cpu_milli);
        self.memory_bytes = self.memory_bytes.saturating_add(other.memory_bytes);
        self.vram_bytes = self.vram_bytes.saturating_add(other.vram_bytes);
    }

    pub(super) fn remove(&mut self, other: Self) {
        self.cpu_milli = self.cpu_milli.saturating_sub(other.cpu_milli);
        self.memory_bytes = self.memory_bytes.saturating_sub(other.memory_bytes);
        self.vram_bytes = self.vram_bytes.saturating_sub(other.vram_bytes);
    }

    /// The share of `all`, in millionths, of the resource of which most is used.
    pub(super) fn dominant_share(self, all: Self) -> u64 {
        share(self.cpu_milli, all.cpu_milli)
            .max(share(self.memory_bytes, all.memory_bytes))
            .max(share(self.vram_bytes, all.vram_bytes))
    }

    pub(super) fn is_none(self) -> bool {
        self == Self::default()
    }
}

/// Millionths of `whole`; of nothing, anything is more than all.
fn share(part: u64, whole: u64) -> u64 {
    const MILLION: u128 = 1_000_000;
    match (part, whole) {
        (0, _) => 0,
        (_, 0) => u64::MAX,
        (part, whole) => {
            u64::try_from(u128::from(part) * MILLION / u128::from(whole)).unwrap_or(u64::MAX)
        }
    }
}
