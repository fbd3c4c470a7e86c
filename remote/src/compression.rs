//! Compressed blobs: zstd, in bounded memory and never more than what was announced.
//!
//! A peer that sends a few bytes which unpack to many is refused as soon as the announced size is
//! passed, not when memory is.

use maestro_core::limits;
use zstd::stream::raw::{Decoder, Encoder, InBuffer, Operation, OutBuffer};

/// Bytes that one step of the decoder makes at most.
const STEP_BYTES: usize = 128 * 1024;
/// How hard the server compresses: as fast as a disk, and most of what is to be gained.
const LEVEL: i32 = 1;

/// Why content could not be compressed or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum CompressionError {
    /// The bytes are no zstd frame, or one with a larger window than we take.
    #[error("the content is not zstd with a window of up to {} MiB", 1 << (limits::ZSTD_WINDOW_LOG_MAX - 20))]
    Malformed {
        /// What zstd says.
        source: std::io::Error,
    },
    /// A frame is cut off.
    #[error("the compressed content ends in the middle of a frame")]
    CutOff,
    /// There is more than was announced.
    #[error("the content unpacks to more than the {limit} bytes that were announced")]
    TooLarge {
        /// What was announced.
        limit: u64,
    },
    /// zstd has no memory.
    #[error("cannot compress")]
    Encoder {
        /// What zstd says.
        source: std::io::Error,
    },
}

/// Unpacks a stream of frames.
pub struct Unpacker {
    decoder: Decoder<'static>,
    left: u64,
    limit: u64,
    /// Whether all frames that began have ended.
    whole: bool,
}

impl Unpacker {
    /// Begins to unpack content of up to `limit` bytes.
    pub fn new(limit: u64) -> Result<Self, CompressionError> {
        let fail = |source| CompressionError::Encoder { source };
        let mut decoder = Decoder::new().map_err(fail)?;
        let window = zstd::zstd_safe::DParameter::WindowLogMax(limits::ZSTD_WINDOW_LOG_MAX);
        decoder.set_parameter(window).map_err(fail)?;
        Ok(Self { decoder, left: limit, limit, whole: true })
    }

    /// Unpacks the next bytes and gives the content piece by piece, at most `STEP_BYTES` each.
    pub fn unpack<E: From<CompressionError>>(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut out = vec![0; STEP_BYTES];
        let mut input = InBuffer::around(bytes);
        loop {
            let before = input.pos();
            let mut output = OutBuffer::around(&mut out);
            let hint = self
                .decoder
                .run(&mut input, &mut output)
                .map_err(|source| CompressionError::Malformed { source })?;
            let made = output.as_slice();
            if made.len() as u64 > self.left {
                return Err(CompressionError::TooLarge { limit: self.limit }.into());
            }
            self.left -= made.len() as u64;
            if input.pos() > before || !made.is_empty() {
                self.whole = hint == 0;
            }
            let full = made.len() == STEP_BYTES;
            if !made.is_empty() {
                each(made)?;
            }
            if input.pos() == bytes.len() && !full {
                return Ok(());
            }
            if hint == 0 && input.pos() < bytes.len() {
                self.decoder.reinit().map_err(|source| CompressionError::Encoder { source })?;
            }
        }
    }

    /// Checks that the last frame has ended.
    pub fn finish(self) -> Result<(), CompressionError> {
        if self.whole { Ok(()) } else { Err(CompressionError::CutOff) }
    }
}

/// Unpacks content that is in memory and must have `size` bytes at most.
pub fn unpack(bytes: &[u8], size: u64) -> Result<Vec<u8>, CompressionError> {
    let mut unpacker = Unpacker::new(size)?;
    let mut content = Vec::new();
    unpacker.unpack(bytes, |piece| {
        content.extend_from_slice(piece);
        Ok::<(), CompressionError>(())
    })?;
    unpacker.finish()?;
    Ok(content)
}

/// Compresses content that is in memory.
pub fn pack(bytes: &[u8]) -> Result<Vec<u8>, CompressionError> {
    zstd::bulk::compress(bytes, LEVEL).map_err(|source| CompressionError::Encoder { source })
}

/// Compresses a stream into one frame.
pub struct Packer(Encoder<'static>);

impl Packer {
    /// Begins a frame.
    pub fn new() -> Result<Self, CompressionError> {
        let encoder = Encoder::new(LEVEL).map_err(|source| CompressionError::Encoder { source })?;
        Ok(Self(encoder))
    }

    /// Compresses the next bytes; with `last`, ends the frame.
    pub fn pack(&mut self, bytes: &[u8], last: bool) -> Result<Vec<u8>, CompressionError> {
        let fail = |source| CompressionError::Encoder { source };
        let mut packed = Vec::new();
        let mut out = vec![0; STEP_BYTES];
        let mut input = InBuffer::around(bytes);
        while input.pos() < bytes.len() {
            let mut output = OutBuffer::around(&mut out);
            self.0.run(&mut input, &mut output).map_err(fail)?;
            packed.extend_from_slice(output.as_slice());
        }
        loop {
            let mut output = OutBuffer::around(&mut out);
            let left = if last {
                self.0.finish(&mut output, true).map_err(fail)?
            } else {
                self.0.flush(&mut output).map_err(fail)?
            };
            packed.extend_from_slice(output.as_slice());
            if left == 0 {
                return Ok(packed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(size: usize) -> Vec<u8> {
        (0..size as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 20) as u8).collect()
    }

    #[test]
    fn streams_round_trip() {
        for size in [0, 1, 1_000, 128 * 1024, 1_000_000] {
            let whole = content(size);
            let mut packer = Packer::new().expect("memory");
            let mut packed = Vec::new();
            for piece in whole.chunks(300_000) {
                packed.extend(packer.pack(piece, false).expect("it is packed"));
            }
            packed.extend(packer.pack(&[], true).expect("it ends"));
            assert_eq!(unpack(&packed, size as u64).expect("it is whole"), whole, "{size}");
            assert_eq!(unpack(&pack(&whole).expect("memory"), size as u64).expect("so"), whole);
        }
    }

    #[test]
    fn several_frames_are_one_content() {
        let frames = [pack(b"one ").expect("memory"), pack(b"two").expect("memory")].concat();
        let mut unpacker = Unpacker::new(7).expect("memory");
        let mut whole = Vec::new();
        for byte in &frames {
            unpacker
                .unpack(&[*byte], |piece| {
                    whole.extend_from_slice(piece);
                    Ok::<(), CompressionError>(())
                })
                .expect("it is read byte by byte");
        }
        unpacker.finish().expect("it is whole");
        assert_eq!(whole, b"one two");
        assert_eq!(unpack(&frames, 7).expect("it is whole"), b"one two");
    }

    #[test]
    fn bombs_and_damage_are_refused() {
        let zeros = vec![0; 50_000_000];
        let bomb = zstd::bulk::compress(&zeros, 19).expect("memory");
        assert!(bomb.len() < 10_000);
        let check = |bytes: &[u8], size: u64, expect: &str| {
            let text = unpack(bytes, size).expect_err(expect).to_string();
            assert!(text.contains(expect), "{text}");
        };
        check(&bomb, 1_000, "more than the 1000 bytes");
        check(b"no frame at all", 100, "not zstd");
        let packed = pack(&content(1_000)).expect("memory");
        check(&packed[..packed.len() - 1], 1_000, "in the middle");
        check(&packed, 999, "more than the 999 bytes");
        let mut wide = zstd::bulk::Compressor::new(1).expect("memory");
        wide.set_parameter(zstd::zstd_safe::CParameter::WindowLog(27)).expect("it is known");
        wide.set_parameter(zstd::zstd_safe::CParameter::ContentSizeFlag(false)).expect("known");
        let wide = wide.compress(&zeros).expect("memory");
        check(&wide, 50_000_000, "a window of up to 8 MiB");
    }
}
