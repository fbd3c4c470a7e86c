//! The lines of the protocol that are checked: their ids, what they say, and which check is theirs.

use std::future::Future;
use std::pin::Pin;

use super::execution::{caching, inputs, lifecycle, outputs};
use super::peer::Peer;
use super::verdict::Outcome;
use super::{action_cache, batch, byte_stream, capabilities, chunks, compressed, tree};

/// The part of the protocol that a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Area {
    /// Blobs: ContentAddressableStorage and ByteStream.
    Contents,
    /// Results of actions: ActionCache.
    Results,
    /// What the server says of itself: Capabilities.
    Capabilities,
    /// Running actions: Execution.
    Execution,
}

impl Area {
    /// The title under which reports list its lines.
    pub fn title(self) -> &'static str {
        match self {
            Self::Contents => "Blobs (ContentAddressableStorage, ByteStream)",
            Self::Results => "Results (ActionCache)",
            Self::Capabilities => "Capabilities",
            Self::Execution => "Execution",
        }
    }
}

/// Whether a line is checked once, or with every digest function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Server,
    EachFunction,
}

type Running = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// One line of the protocol.
pub struct Line {
    /// Its id, such as `C06`: stable.
    pub id: &'static str,
    /// What it says.
    pub title: &'static str,
    /// What it is about.
    pub area: Area,
    pub(super) scope: Scope,
    pub(super) check: fn(Peer) -> Running,
}

impl PartialEq for Line {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Line {}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.id)
    }
}

macro_rules! lines {
    ($($id:literal $area:ident $scope:ident $check:path: $title:literal;)*) => {
        /// Every line that is checked, in the order of reports.
        pub static LINES: &[Line] = &[$(Line {
            id: $id,
            title: $title,
            area: Area::$area,
            scope: Scope::$scope,
            check: |peer| Box::pin($check(peer)),
        }),*];
    };
}

lines! {
    "C01" Contents EachFunction byte_stream::upload_names:
        "uploads have a name with an instance, an id and anything behind; keywords are refused";
    "C02" Contents EachFunction byte_stream::function_in_names:
        "BLAKE3 is named in resource names, SHA-256 is not; unknown functions are refused";
    "C03" Contents EachFunction compressed::verified_writes:
        "compressed uploads are verified by what they unpack to";
    "C04" Contents EachFunction compressed::offsets:
        "compressed uploads count compressed bytes; reads start at an uncompressed offset";
    "C05" Contents EachFunction byte_stream::duplicates:
        "an upload of what is there ends early, without an error, with the whole size";
    "C06" Contents EachFunction batch::wrong_digests:
        "content with another hash or another size is refused, and not stored";
    "C07" Contents EachFunction batch::empty_blob:
        "the empty blob is there, in every call, without an upload";
    "C08" Contents EachFunction compressed::every_way:
        "a blob is read as it is and compressed, whichever way it came";
    "C09" Contents Server byte_stream::resource_header:
        "the header that repeats the resource name has to agree with it";
    "C10" Contents EachFunction batch::missing:
        "missing blobs are found in any order, asked once or twice, of one digest function";
    "C11" Contents EachFunction batch::limits:
        "batches have a limit, and a status for each blob";
    "C12" Contents EachFunction tree::trees:
        "trees come in pages that can be gone on with, without what is missing";
    "C13" Contents Server byte_stream::largest_blob:
        "what is larger than the largest blob is refused";
    "C14" Contents EachFunction chunks::split_and_splice:
        "blobs are split into chunks and spliced of them, and what is spliced is verified";
    "C15" Contents EachFunction chunks::fast_cdc:
        "chunks are cut as the parameters that are announced say";
    "C16" Contents EachFunction byte_stream::resumption:
        "an upload that broke off goes on where the server says";
    "A01" Results EachFunction action_cache::completeness:
        "a result is found only with all that it names";
    "A02" Results EachFunction action_cache::action_first:
        "a result is stored; the server may ask for its action and command first";
    "A03" Results EachFunction action_cache::inlining:
        "contents are inlined for who asks, and never beyond the size of a message";
    "A04" Results EachFunction action_cache::overwriting:
        "a result takes the place of an earlier one";
    "A05" Results EachFunction action_cache::do_not_cache:
        "the result of an action that says `do_not_cache` is not given to others";
    "A06" Results EachFunction action_cache::salt:
        "actions that differ in their salt alone have results of their own";
    "A07" Results EachFunction caching::errors_uncached:
        "an action that ended in an error leaves no result";
    "A08" Results EachFunction action_cache::failures:
        "results of actions that failed are kept, or are not";
    "A09" Results EachFunction action_cache::empty_results:
        "a result that says nothing comes back as a message that is not empty";
    "K01" Capabilities Server capabilities::services:
        "digest functions are listed, and those that are not are refused";
    "K02" Capabilities Server capabilities::versions:
        "the versions that are announced are spoken";
    "K03" Capabilities Server capabilities::flags:
        "what is said of chunks and of compressors holds";
    "E01" Execution Server lifecycle::errors:
        "errors are statuses of the call or of the response, never of the operation";
    "E02" Execution EachFunction inputs::missing_inputs:
        "every input that is missing is named as one";
    "E03" Execution Server lifecycle::stage:
        "an execution is done when it is COMPLETED, and says nothing after";
    "E04" Execution Server lifecycle::waiting:
        "an execution is waited for by others than who began it";
    "E05" Execution Server lifecycle::time_limit:
        "an action above its time limit ends, with what it has written";
    "E06" Execution Server lifecycle::priority:
        "priorities that are announced are taken";
    "E07" Execution Server inputs::platform:
        "the platform of the action counts; properties that nobody knows are refused";
    "E08" Execution Server inputs::environment:
        "actions have their variables and their working directory, and no others";
    "E09" Execution Server outputs::paths:
        "outputs are files and folders below folders that are there; absent ones are left out";
    "E10" Execution Server outputs::symlinks:
        "links stay as they are; absolute ones are taken as announced";
    "E11" Execution Server outputs::directory_formats:
        "output directories come in the form that was asked for";
    "E12" Execution Server outputs::node_properties:
        "properties of nodes that are announced are told, others are refused";
    "E13" Execution Server lifecycle::times:
        "the times of an execution are in order";
    "E14" Execution Server lifecycle::request_metadata:
        "calls may say which build they are part of";
    "E15" Execution Server inputs::canonical:
        "input directories are sorted, and have no name twice or outside";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_in_order() {
        let order = |line: &Line| "CAKE".find(&line.id[..1]).map(|family| (family, line.id));
        let ids: Vec<_> = LINES.iter().map(order).collect();
        assert!(ids.iter().all(Option::is_some));
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    }
}
