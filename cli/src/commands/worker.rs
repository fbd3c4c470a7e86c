//! `maestro worker`: runs the actions that a server gives it, in the same sandbox as local builds.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use maestro_core::scheduler::Gpu;
use maestro_remote::client::{ClientOptions, Download, TlsOptions};
use maestro_remote::platform::cpu_milli;
use maestro_remote::worker::{News, Worker, WorkerError, WorkerOptions};
use tokio_util::sync::CancellationToken;

use super::cache::parse_size;
use super::serve::{read_pem, read_secret};
use crate::args::WorkerArgs;
use crate::exit::{Failure, chain};

/// How long the server may be silent.
const SILENCE: Duration = Duration::from_secs(10);
/// What programs are made of, where it is there.
const HOST_FOLDERS: [&str; 7] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/alternatives"];

/// Runs the command.
pub fn worker(args: &WorkerArgs) -> Result<ExitCode> {
    let options = options(args)?;
    std::fs::create_dir_all(&options.data)
        .with_context(|| format!("cannot make `{}`", options.data.display()))?;
    maestro_executor::sandbox::probe(&options.program, &options.data).map_err(|error| {
        let mut failure = Failure::environment(chain(&error));
        for hint in error.hints() {
            failure = failure.hint(hint);
        }
        failure
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let done = runtime.block_on(run(options));
    // Whoever asked twice does not wait for what runs.
    runtime.shutdown_background();
    done?;
    Ok(ExitCode::SUCCESS)
}

async fn run(options: WorkerOptions) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut ended = signal(SignalKind::terminate()).context("cannot handle signals")?;
    let mut interrupted = signal(SignalKind::interrupt()).context("cannot handle signals")?;
    let url = options.server.url.clone();
    let worker = Worker::open(options).map_err(failure)?;
    let drain = CancellationToken::new();
    let mut was_lost = false;
    let tell = |news: News| match news {
        News::Connected => {
            was_lost = false;
            // Whoever waits for this line may have gone; the worker works all the same.
            let mut stdout = std::io::stdout();
            let _ = writeln!(stdout, "connected to {url}").and_then(|()| stdout.flush());
        }
        // Once each time, not for every attempt.
        News::Disconnected(why) if !was_lost => {
            was_lost = true;
            eprintln!("warning: `{url}` is lost ({why}); the worker tries to come back");
        }
        News::Disconnected(_) => {}
    };
    let working = worker.run(drain.clone(), tell);
    tokio::pin!(working);
    loop {
        tokio::select! {
            done = &mut working => return done.map_err(failure),
            _ = ended.recv() => {}
            _ = interrupted.recv() => {}
        }
        if drain.is_cancelled() {
            return Err(Failure::environment("stopped before its actions had ended").into());
        }
        eprintln!("draining: the worker ends when its actions have; a second signal ends it now");
        drain.cancel();
    }
}

fn failure(error: WorkerError) -> anyhow::Error {
    match error {
        WorkerError::Store(error) => error.into(),
        WorkerError::Options(error) => crate::remote::failure(&error).into(),
        WorkerError::Refused { .. } => Failure::input(chain(&error))
            .hint("`--token-file` names the file with the token of a worker, `TOKEN * worker`")
            .into(),
    }
}

fn options(args: &WorkerArgs) -> Result<WorkerOptions> {
    let mut properties: Vec<(String, String)> = vec![
        ("os".to_owned(), std::env::consts::OS.to_owned()),
        ("arch".to_owned(), std::env::consts::ARCH.to_owned()),
        // What Bazel's rules and other servers call the same.
        ("OSFamily".to_owned(), std::env::consts::OS.to_owned()),
        ("ISA".to_owned(), std::env::consts::ARCH.replace('_', "-")),
    ];
    properties.extend(args.property.iter().map(|own| (own.name.clone(), own.value.clone())));
    let cpu_milli = match &args.cpu {
        Some(text) => cpu_milli(text).filter(|milli| *milli > 0).ok_or_else(|| {
            Failure::input(format!("`--cpu {text}` is not a number of cores, such as `4` or `0.5`"))
        })?,
        None => std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64) * 1_000,
    };
    let memory_bytes = match &args.memory {
        Some(text) => parse_size(text)?,
        None => {
            let info = rustix::system::sysinfo();
            info.totalram.saturating_mul(info.mem_unit.into())
        }
    };
    let data = std::path::absolute(&args.data).context("cannot tell the current folder")?;
    Ok(WorkerOptions {
        server: server(args)?,
        name: args.name.clone().unwrap_or_else(machine_name),
        data,
        bytes_max: parse_size(&args.max_bytes)?,
        program: std::env::current_exe().context("cannot find Maestro's own program")?,
        host: host_folders(args)?,
        properties,
        cpu_milli,
        memory_bytes,
        gpus: args.gpu.iter().map(|text| gpu(text)).collect::<Result<_>>()?,
        models: args.model.clone(),
    })
}

fn server(args: &WorkerArgs) -> Result<ClientOptions> {
    let mut headers: Vec<(String, String)> = args
        .remote_header
        .iter()
        .map(|header| (header.name.clone(), header.value.clone()))
        .collect();
    if let Some(path) = &args.token_file {
        let token = read_secret(path)?;
        headers.push(("authorization".to_owned(), format!("Bearer {}", token.trim())));
    }
    let read = |path: &Option<PathBuf>| path.as_deref().map(read_pem).transpose();
    let (authority, certificate, key) =
        (read(&args.tls_ca)?, read(&args.tls_cert)?, read(&args.tls_key)?);
    Ok(ClientOptions {
        url: args.server.clone(),
        instance: String::new(),
        headers,
        tls: TlsOptions { authority, identity: certificate.zip(key) },
        silence: SILENCE,
        upload: true,
        execute: false,
        download: Download::All,
        compress: true,
        required: true,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        invocation_id: String::new(),
    })
}

fn machine_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn gpu(text: &str) -> Result<Gpu> {
    let wrong = || {
        Failure::input(format!("`--gpu {text}` is not `MODEL:SIZE`"))
            .hint("for example `--gpu l4:24G`")
    };
    let (model, size) = text.rsplit_once(':').ok_or_else(wrong)?;
    Ok(Gpu { model: model.to_owned(), vram_bytes: parse_size(size)? })
}

/// The folders of this machine that actions see: links among them are there through the others.
fn host_folders(args: &WorkerArgs) -> Result<Vec<PathBuf>> {
    if args.no_host {
        return Ok(Vec::new());
    }
    if args.host_folder.is_empty() {
        let is_folder = |path: &&Path| path.symlink_metadata().is_ok_and(|found| found.is_dir());
        return Ok(HOST_FOLDERS
            .iter()
            .map(Path::new)
            .filter(is_folder)
            .map(Path::to_owned)
            .collect());
    }
    for folder in &args.host_folder {
        let normal =
            folder.components().skip(1).all(|part| matches!(part, std::path::Component::Normal(_)));
        if !folder.is_absolute() || !normal || folder.parent().is_none() || !folder.is_dir() {
            let text = format!("`--host-folder {}` is not the path of a folder", folder.display());
            return Err(Failure::input(text)
                .hint("it begins with `/` and is not `/` itself")
                .into());
        }
    }
    Ok(args.host_folder.clone())
}
