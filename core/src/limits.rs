//! Every bound that Maestro enforces, each with a name and a unit.
//!
//! A queue, cache, retry, wait or message without a bound here is a bug (invariant 9).

/// Longest relative path, in bytes.
pub const PATH_BYTES_MAX: usize = 4096;
/// Longest single name in a path, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest single argument before it must move to a param file, in bytes (Linux `MAX_ARG_STRLEN`).
pub const ARGUMENT_BYTES_MAX: usize = 128 * 1024;
/// Longest command line before it spills into a param file, in bytes: a quarter of the usual stack
/// of 8 MiB is what Linux gives to arguments and environment, and some of it is for the latter.
pub const ARGUMENTS_BYTES_MAX: usize = 2 * 1024 * 1024 - 64 * 1024;
/// Most nodes of a Directory message that is read from the store.
pub const DIRECTORY_ENTRIES_MAX: usize = 1_000_000;
/// Most arguments, and most outputs, of a Command message that is read from the store.
pub const COMMAND_ENTRIES_MAX: usize = 1_000_000;
/// Deepest nesting of directories in a tree.
pub const TREE_DEPTH_MAX: usize = 512;
/// Most entries of one tree artifact.
pub const TREE_ENTRIES_MAX: usize = 5_000_000;
/// Largest Directory, Action, Command or result message that is read, in bytes.
pub const MESSAGE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Largest blob that is read into memory whole, in bytes.
pub const BLOB_IN_MEMORY_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Largest standard output or error that is kept of one action, in bytes.
pub const ACTION_LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Most times that one action is run again in a build because blobs of it were lost.
pub const REWINDS_MAX: u32 = 5;
/// Most earlier states of one action that the cache remembers, to compare with.
pub const BASELINES_MAX: usize = 8;
/// Directories of inputs that are gathered before they are stored in one piece, in bytes.
pub const BASELINE_PACK_BYTES: usize = 4 * 1024 * 1024;
/// Directories of the inputs of one action that are remembered at all, in bytes.
pub const BASELINE_ACTION_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Actions that are gathered before they are remembered.
pub const BASELINE_PACK_ACTIONS: usize = 512;
/// Default time limit of a command action, in milliseconds.
pub const ACTION_TIMEOUT_MS_DEFAULT: u64 = 60 * 60 * 1000;
/// Longest time limit that clients can ask of a server for an action, in milliseconds.
pub const ACTION_TIMEOUT_MS_MAX: u64 = 24 * 60 * 60 * 1000;
/// Largest text that stands in `maestro.lock.d/`, in bytes.
pub const LOCK_TEXT_BYTES_MAX: usize = 64 * 1024;
/// Largest build file, in bytes.
pub const BUILD_FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Most Starlark ticks (statements, roughly) that one file may take.
pub const STARLARK_TICKS_MAX: u64 = 1_000_000_000;
/// Largest Starlark heap of one file, in bytes.
pub const STARLARK_HEAP_BYTES_MAX: usize = 2 * 1024 * 1024 * 1024;
/// Largest string, list or tuple that a product makes at once, in bytes.
pub const STARLARK_PRODUCT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most numbers of one Starlark range.
pub const STARLARK_RANGE_MAX: i64 = 100_000_000;
/// Most memory that one step of a Starlark file may ask for at once, in bytes.
pub const STARLARK_STEP_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// Most entries of folders that the globs of one file look at.
pub const GLOB_ENTRIES_MAX: usize = 10_000_000;
/// Deepest Starlark call stack.
pub const STARLARK_CALL_DEPTH_MAX: usize = 200;
/// Files whose time stamps are this close to their hash are hashed again, in milliseconds.
pub const RACY_WINDOW_MS: u64 = 2_000;
/// Most events that wait for a slow sink before further ones are dropped and counted.
pub const EVENT_QUEUE_MAX: usize = 65_536;
/// Largest HTTP download, in bytes.
pub const DOWNLOAD_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;
/// Most attempts of one download.
pub const DOWNLOAD_ATTEMPTS_MAX: u32 = 4;
/// Longest time that one call of a client such as pip or git may take, in milliseconds.
pub const CLIENT_CALL_TIMEOUT_MS: u64 = 30 * 60 * 1000;
/// Largest unpacked archive, in bytes.
pub const ARCHIVE_BYTES_MAX: u64 = 32 * 1024 * 1024 * 1024;
/// Largest ratio of unpacked to packed size of an archive.
pub const ARCHIVE_RATIO_MAX: u64 = 2_000;
/// Largest answer of a model, in bytes.
pub const LLM_ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest prompt of a model with its context, in bytes.
pub const LLM_PROMPT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The longest answer of a step of a pipeline that names no bound, in tokens.
pub const LLM_OUTPUT_TOKENS_DEFAULT: u64 = 4096;
/// Longest time that one call of a model may take, in milliseconds.
pub const LLM_CALL_TIMEOUT_MS: u64 = 15 * 60 * 1000;
/// Most files of a tree that one action maps.
pub const MAP_PARTS_MAX: usize = 100_000;
/// Most actions that wait for the network at once, beside the commands that run.
pub const NETWORK_ACTIONS_MAX: usize = 4;
/// Longest query, in bytes.
pub const QUERY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Deepest nesting of parentheses and calls in a query; its parser recurses.
pub const QUERY_DEPTH_MAX: usize = 100;
/// Most steps of a run's plan.
pub const RUN_STEPS_MAX: usize = 20_000;
/// Most gates, scans and signatures of a run's plan; every effect remembers those before it.
pub const RUN_GUARDS_MAX: usize = 256;
/// How long work may take to stop after it was cancelled, in milliseconds: a rollout has to get its
/// traffic back in that time.
pub const RUN_GRACE_MS: u64 = 30_000;
/// Most people that one gate waits for.
pub const RUN_APPROVALS_MAX: u32 = 100;
/// Most items of one `foreach`, and most rounds of one `until`.
pub const RUN_TASKS_MAX: u32 = 100_000;
/// Largest request of an effect, in bytes: it stands in the journal.
pub const RUN_REQUEST_BYTES_MAX: usize = 1024 * 1024;
/// Largest outputs of one task, in bytes of JSON: they stand in the journal.
pub const RUN_OUTPUTS_BYTES_MAX: usize = 256 * 1024;
/// Most times that a person has one run go on after its end; more is a run that poisons.
pub const RUN_REOPENS_MAX: u32 = 20;
/// How often a run may have gone on after its end and still be replayed with others by a filter.
pub const RUN_BULK_REOPENS_MAX: u32 = 3;
/// Longest name of a tenant, in bytes.
pub const TENANT_NAME_BYTES_MAX: usize = 100;
/// Longest time over which the rate of spending is taken, in minutes.
pub const BUDGET_RATE_MINUTES_MAX: u32 = 24 * 60;
/// Largest policy file, in bytes.
pub const POLICY_FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Largest document of data beside policies, in bytes.
pub const POLICY_DATA_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Most policy and data files that are loaded at once.
pub const POLICY_FILES_MAX: usize = 1_000;
/// Most files and folders that are looked at while policies are searched.
pub const POLICY_ENTRIES_MAX: usize = 100_000;
/// Largest input of a decision as JSON, in bytes.
pub const POLICY_INPUT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Longest time that one decision may take, in milliseconds.
pub const POLICY_DECISION_MS_MAX: u64 = 1_000;
/// Longest time that one test of a policy may take, in milliseconds.
pub const POLICY_TEST_MS_MAX: u64 = 10_000;
/// Longest chain of rules of a policy that need each other.
pub const POLICY_RULE_DEPTH_MAX: usize = 64;
/// Most expressions that are looked at while the paths of a policy are checked.
pub const POLICY_CHECKS_MAX: usize = 2_000_000;
/// Stack on which policies are loaded and evaluated, in bytes.
pub const POLICY_STACK_BYTES: usize = 256 * 1024 * 1024;
/// Most reasons that a decision keeps.
pub const POLICY_REASONS_MAX: usize = 100;
/// Longest code or message of a reason, in bytes.
pub const POLICY_REASON_BYTES_MAX: usize = 4 * 1024;
/// Longest instance name of a remote cache, in bytes.
pub const INSTANCE_NAME_BYTES_MAX: usize = 256;
/// Most instance names of one server.
pub const INSTANCES_MAX: usize = 1_000;
/// Longest name of a resource of a remote cache, in bytes.
pub const RESOURCE_NAME_BYTES_MAX: usize = 4_096;
/// Largest blob that a server puts into a pack with others, in bytes.
pub const PACKED_BLOB_BYTES_MAX: usize = 64 * 1024;
/// Largest pack of a server, in bytes.
pub const PACK_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Most uploads of large blobs that have begun and not ended.
pub const UPLOADS_MAX: usize = 10_000;
/// How long an upload may rest before what came of it is deleted, in milliseconds.
pub const UPLOAD_KEPT_MS: u64 = 24 * 60 * 60 * 1000;
/// How often a server has the disk hold all that it has acknowledged, in milliseconds.
pub const DEPOT_SEAL_MS: u64 = 30_000;
/// Most chunks of one blob.
pub const BLOB_CHUNKS_MAX: usize = 100_000;
/// Largest message that a server takes, in bytes. Answers are smaller than what clients take where
/// nothing else was agreed, 4 MiB.
pub const RPC_MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most bytes of blobs in one batch, in bytes: some less than those 4 MiB, for what is around them.
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024 - 64 * 1024;
/// Most digests of one request.
pub const REQUEST_DIGESTS_MAX: usize = 200_000;
/// Largest blob of a server, in bytes.
pub const SERVED_BLOB_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;
/// Bytes of a blob that one message of a stream carries.
pub const STREAM_CHUNK_BYTES: usize = 512 * 1024;
/// Memory of the window with which compressed blobs are read, as a power of two in bytes; every
/// conforming encoder stays within 8 MiB unless told otherwise.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Most blobs that one action result names, those in its trees included.
pub const RESULT_NAMES_MAX: usize = 1_000_000;
/// Most missing blobs that a refused action is told of at once.
pub const MISSING_NAMED_MAX: usize = 10_000;
/// Largest action result that a server takes, in bytes.
pub const RESULT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Directories of one page of a tree.
pub const TREE_PAGE_DIRECTORIES: usize = 1_000;
/// Longest time that one call of a check of conformance may take, in milliseconds.
pub const CONFORMANCE_CALL_MS_MAX: u64 = 20_000;
/// Longest time that one check of conformance may take, in milliseconds.
pub const CONFORMANCE_CHECK_MS_MAX: u64 = 120_000;
/// How long a check of conformance waits for an answer to a stream that is still open, in
/// milliseconds.
pub const CONFORMANCE_EARLY_MS_MAX: u64 = 5_000;
/// Most bytes that a check of conformance reads at once: more than any of them stores.
pub const CONFORMANCE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Most streams that one connection of a server has at once.
pub const CONNECTION_STREAMS_MAX: u32 = 1_024;
/// Longest time that a stream of a server may be silent, in milliseconds.
pub const STREAM_SILENCE_MS_MAX: u64 = 120_000;
/// Most blobs that a client remembers to be on a server.
pub const REMOTE_PRESENT_MAX: usize = 1_000_000;
/// Longest time that a server takes to end after SIGTERM, in milliseconds.
pub const DRAIN_MS_MAX: u64 = 30_000;
/// Most bearer tokens of one file.
pub const TOKENS_MAX: usize = 10_000;
/// Largest file of bearer tokens, in bytes.
pub const TOKENS_FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// How often a worker says that it is alive, in milliseconds.
pub const HEARTBEAT_MS: u64 = 1_000;
/// How long a worker, or one of its leases, may not be heard of before it is lost, in milliseconds.
pub const LEASE_MS: u64 = 5_000;
/// How long a worker may take to fetch inputs and to store outputs, in milliseconds, beside the
/// time limit of the action.
pub const LEASE_TRANSFER_MS_MAX: u64 = 15 * 60 * 1000;
/// Most times that an action is tried where workers are lost or at fault.
pub const ATTEMPTS_MAX: u32 = 5;
/// How long an action waits for a worker that could run it to appear, in milliseconds.
pub const UNSERVED_MS_MAX: u64 = 30_000;
/// How long an operation goes on that no client waits for, in milliseconds.
pub const ABANDONED_MS: u64 = 60_000;
/// How long an action waits, with others passing it, before a worker is reserved, in milliseconds.
pub const RESERVE_AFTER_MS: u64 = 5_000;
/// How long a worker rests after a fault, in milliseconds; twice as long after each further one.
pub const WORKER_REST_MS: u64 = 1_000;
/// Longest rest of a worker, in milliseconds.
pub const WORKER_REST_MS_MAX: u64 = 60_000;
/// Most workers of a server.
pub const WORKERS_MAX: usize = 10_000;
/// Most names of platform properties that a server learns from its workers.
pub const KNOWN_PROPERTIES_MAX: usize = 1_000;
/// Most leases of one worker.
pub const WORKER_LEASES_MAX: usize = 1_000;
/// Most operations of a server that have not ended.
pub const OPERATIONS_MAX: usize = 1_000_000;
/// Most operations of one tenant that have not ended.
pub const TENANT_OPERATIONS_MAX: usize = 200_000;
/// Most different requirements of actions that have not ended.
pub const REQUIREMENT_CLASSES_MAX: usize = 10_000;
