//! Names the libraries that Debian's static `librocksdb.a` needs.
//!
//! The `librocksdb-sys` crate links the archive itself and the C++ runtime, but not what the
//! archive was compiled against; a dynamic library would say so itself. All but the C++ runtime
//! are linked statically, so that the program starts without resolving them (see
//! `docs/design/rocksdb.md`).

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=ROCKSDB_LIB_DIR");
    println!("cargo:rerun-if-env-changed=ROCKSDB_STATIC");
    if std::env::var_os("ROCKSDB_STATIC").is_none() {
        return;
    }
    if let Some(folder) = std::env::var_os("ROCKSDB_LIB_DIR") {
        println!("cargo:rustc-link-search=native={}", folder.to_string_lossy());
    }
    for library in ["snappy", "lz4", "bz2", "z", "gflags", "zstd"] {
        println!("cargo:rustc-link-lib=static={library}");
    }
    println!("cargo:rustc-link-lib=dylib=stdc++");
}
