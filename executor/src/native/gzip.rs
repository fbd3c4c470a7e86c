//! Compresses with gzip (RFC 1952) so that equal input gives equal bytes everywhere.
//!
//! The compressor is named directly and pinned to one exact version, since `flate2` may switch to
//! another when any crate of the build asks for it. A new version of it, or another level, bumps
//! the semantics of every kind that compresses (`tar`, `oci-image`); golden digests hold this.

use std::io::{self, Write};

use miniz_oxide::deflate::core::{CompressorOxide, create_comp_flags_from_zip_params};
use miniz_oxide::deflate::stream::deflate;
use miniz_oxide::{MZFlush, MZStatus};

/// The compression level of zlib's scale.
const LEVEL: i32 = 6;
/// A raw deflate stream: the gzip frame is written here.
const RAW_WINDOW_BITS: i32 = -15;
/// Magic, deflate, no flags, no time, no extra flags, unknown operating system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// The bytes that are compressed in one go.
const BUFFER_BYTES: usize = 128 * 1024;

/// Writes one gzip member.
pub(super) struct GzipWriter<W> {
    out: W,
    compressor: Box<CompressorOxide>,
    buffer: Vec<u8>,
    checksum: crc32fast::Hasher,
    size: u32,
}

impl<W: Write> GzipWriter<W> {
    /// Starts a member: its header is written at once.
    pub(super) fn new(mut out: W) -> io::Result<Self> {
        out.write_all(&HEADER)?;
        let flags = create_comp_flags_from_zip_params(LEVEL, RAW_WINDOW_BITS, 0);
        Ok(Self {
            out,
            compressor: Box::new(CompressorOxide::new(flags)),
            buffer: vec![0; BUFFER_BYTES],
            checksum: crc32fast::Hasher::new(),
            size: 0,
        })
    }

    /// Ends the member and gives the writer back.
    pub(super) fn finish(mut self) -> io::Result<W> {
        while self.compress(&[], MZFlush::Finish)?.1 != MZStatus::StreamEnd {}
        self.out.write_all(&self.checksum.finalize().to_le_bytes())?;
        self.out.write_all(&self.size.to_le_bytes())?;
        Ok(self.out)
    }

    fn compress(&mut self, input: &[u8], flush: MZFlush) -> io::Result<(usize, MZStatus)> {
        let result = deflate(&mut self.compressor, input, &mut self.buffer, flush);
        let status = result
            .status
            .map_err(|error| io::Error::other(format!("the compressor failed: {error:?}")))?;
        let compressed = self.buffer.get(..result.bytes_written).unwrap_or_default();
        self.out.write_all(compressed)?;
        Ok((result.bytes_consumed, status))
    }
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let mut consumed = 0;
        // A full output buffer may leave no room for any input at first.
        while consumed == 0 {
            (consumed, _) = self.compress(bytes, MZFlush::None)?;
        }
        let consumed_bytes = bytes.get(..consumed).unwrap_or_default();
        self.checksum.update(consumed_bytes);
        // ISIZE is the length modulo 2^32.
        self.size = self.size.wrapping_add(consumed as u32);
        Ok(consumed)
    }

    /// Does nothing: where the compressor is flushed would show in the bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use maestro_core::DigestFunction;

    use super::*;

    /// Bytes of a fixed linear congruence, neither constant nor incompressible.
    fn sample(length: usize) -> Vec<u8> {
        let mut state = 12345u32;
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 28) as u8 + b'a'
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    fn compress(bytes: &[u8], step: usize) -> Vec<u8> {
        let mut writer = GzipWriter::new(Vec::new()).expect("memory");
        for chunk in bytes.chunks(step) {
            writer.write_all(chunk).expect("memory");
        }
        writer.finish().expect("memory")
    }

    #[test]
    fn round_trips_whatever_the_chunks_are() {
        for length in [0, 1, 70_000, 1_000_000] {
            let bytes = sample(length);
            let whole = compress(&bytes, 1 << 20);
            assert_eq!(whole, compress(&bytes, 4096), "{length}");
            assert_eq!(whole, compress(&bytes, 777), "{length}");
            let mut back = Vec::new();
            flate2::read::GzDecoder::new(whole.as_slice()).read_to_end(&mut back).expect("gzip");
            assert_eq!(back, bytes);
        }
    }

    /// Another digest here means other bytes: bump the semantics of `tar` and `oci-image`.
    #[test]
    fn bytes_are_golden() {
        let digest = DigestFunction::Sha256.digest(&compress(&sample(300_000), 8192));
        assert_eq!(
            digest.hex(),
            "a3b4ab8c2a6b43b810a7a4f3854ef8f87cc3fd4a0fa21a33568c5d60ee4e236d"
        );
    }
}
