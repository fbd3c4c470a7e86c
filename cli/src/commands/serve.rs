//! `maestro serve`: a remote cache and remote execution for Maestro, Bazel and other REAPI clients.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use maestro_cas::{Depot, DepotOptions};
use maestro_core::limits;
use maestro_remote::server::access::Tokens;
use maestro_remote::server::{Server, ServerOptions, TlsOptions};
use rustix::process::Resource;

use super::cache::parse_size;
use crate::args::ServeArgs;
use crate::exit::Failure;

/// Largest certificate or key that is read, in bytes.
const PEM_BYTES_MAX: u64 = 1024 * 1024;

/// Runs the command.
pub fn serve(args: &ServeArgs) -> Result<ExitCode> {
    refuse_strangers(args)?;
    let tokens = args.tokens.as_deref().map(read_tokens).transpose()?;
    let tls = read_tls(args)?;
    let bytes_max = parse_size(&args.max_bytes)?;
    raise_open_files();
    let owner = format!("`maestro serve` of process {}", std::process::id());
    let depot = Depot::open(DepotOptions { root: args.data.clone(), bytes_max, owner })?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let options = ServerOptions { listen: args.listen, depot: Arc::new(depot), tokens, tls };
    runtime.block_on(run(options))?;
    Ok(ExitCode::SUCCESS)
}

async fn run(options: ServerOptions) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut ended = signal(SignalKind::terminate()).context("cannot handle signals")?;
    let mut interrupted = signal(SignalKind::interrupt()).context("cannot handle signals")?;
    let server = Server::bind(options).await.map_err(failure)?;
    // Whoever waits for this line may have gone; the server serves all the same.
    let mut stdout = std::io::stdout();
    let _ = writeln!(stdout, "listening on {}", server.address()).and_then(|()| stdout.flush());
    let stop = async move {
        tokio::select! {
            _ = ended.recv() => {}
            _ = interrupted.recv() => {}
        }
    };
    server.run(stop).await.map_err(failure)
}

fn failure(error: maestro_remote::server::ServerError) -> anyhow::Error {
    use maestro_remote::server::ServerError;
    match error {
        ServerError::Store(error) => error.into(),
        ServerError::Certificates(_) => Failure::input(maestro_core::failure::chain(&error))
            .hint("`--tls-cert` and `--tls-key` name PEM files of one pair")
            .into(),
        other => Failure::environment(maestro_core::failure::chain(&other)).into(),
    }
}

/// Whoever can be reached from other machines says who may come.
fn refuse_strangers(args: &ServeArgs) -> Result<()> {
    let asked = args.tokens.is_some() || args.tls_client_ca.is_some() || args.no_auth;
    if asked || args.listen.ip().is_loopback() {
        return Ok(());
    }
    let text = format!(
        "`{}` can be reached from other machines, and nobody would be asked who they are",
        args.listen
    );
    Err(Failure::input(text)
        .hint("`--tokens FILE` or `--tls-client-ca FILE` says who may come in")
        .hint("`--no-auth` serves whoever can connect")
        .into())
}

fn read_tokens(path: &Path) -> Result<Tokens> {
    let text = read_secret(path)?;
    Ok(Tokens::parse(&text).map_err(|error| {
        Failure::input(format!("`{}`: {error}", path.display()))
            .hint("a line is, for example, `TOKEN team-a read-write`")
    })?)
}

/// Reads a file that nobody else may read.
pub(super) fn read_secret(path: &Path) -> Result<String> {
    let cannot = || format!("cannot read `{}`", path.display());
    let file = File::open(path).with_context(cannot)?;
    let mode = file.metadata().with_context(cannot)?.mode();
    if mode & 0o077 != 0 {
        let text =
            format!("`{}` has mode {:04o}, so others may read it", path.display(), mode & 0o7777);
        let hint = format!("run `chmod 600 {}`", path.display());
        return Err(Failure::input(text).hint(hint).into());
    }
    let bytes = bounded(file, path, limits::TOKENS_FILE_BYTES_MAX)?;
    let text = String::from_utf8(bytes);
    Ok(text.map_err(|_| Failure::input(format!("`{}` is not UTF-8", path.display())))?)
}

fn read_tls(args: &ServeArgs) -> Result<Option<TlsOptions>> {
    let (Some(certificate), Some(key)) = (&args.tls_cert, &args.tls_key) else { return Ok(None) };
    let client_ca = args.tls_client_ca.as_deref().map(read_pem).transpose()?;
    let (certificate, key) = (read_pem(certificate)?, read_pem(key)?);
    Ok(Some(TlsOptions { certificate, key, client_ca }))
}

/// Reads certificates or a key.
pub(super) fn read_pem(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    bounded(file, path, PEM_BYTES_MAX)
}

fn bounded(file: File, path: &Path, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read `{}`", path.display()))?;
    if bytes.len() as u64 > limit {
        let text = format!("`{}` is larger than the limit of {limit} bytes", path.display());
        return Err(Failure::input(text).into());
    }
    Ok(bytes)
}

/// Every connection, upload and pack is an open file: as many are allowed as may be.
fn raise_open_files() {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(errno) = rustix::process::setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%errno, "the limit of open files stays as it is");
    }
}
