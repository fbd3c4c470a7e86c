//! `runfiles`: what an executable needs beside it when it runs.

use std::fmt;

use allocative::Allocative;
use starlark::coerce::Coerce;
use starlark::environment::{Methods, MethodsBuilder};
use starlark::eval::Evaluator;
use starlark::starlark_complex_value;
use starlark::starlark_module;
use starlark::values::{
    Freeze, FreezeResult, Freezer, Heap, NoSerialize, ProvidesStaticType, StarlarkPagablePanic,
    StarlarkValue, Trace, Value, ValueLike, starlark_value,
};

use super::depset::{Depset, Unfold};
use super::file::FileValue;
use super::{expect_sequence, wrong_type};
use crate::error::RuleError;
use crate::scope::RuleScope;

/// A set of files at their short paths, and files at paths of their own.
#[derive(
    Debug, Trace, Coerce, ProvidesStaticType, NoSerialize, StarlarkPagablePanic, Allocative,
)]
#[repr(C)]
pub(crate) struct RunfilesGen<V> {
    files: V,
    /// Paths in the tree, and the files that stand there.
    #[trace(static)]
    #[allocative(skip)]
    symlinks: Vec<(String, FileValue)>,
}

starlark_complex_value!(pub(crate) Runfiles);

impl Freeze for Runfiles<'_> {
    type Frozen = FrozenRunfiles;

    fn freeze(self, freezer: &Freezer<'_>) -> FreezeResult<Self::Frozen> {
        let Self { files, symlinks } = self;
        Ok(RunfilesGen { files: files.freeze(freezer)?, symlinks })
    }
}

impl<V> fmt::Display for RunfilesGen<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<runfiles>")
    }
}

starlark::methods_static!(RUNFILES_METHODS = runfiles_methods);

#[starlark_value(type = "runfiles")]
impl<'v, V: ValueLike<'v>> StarlarkValue<'v> for RunfilesGen<V>
where
    Self: ProvidesStaticType<'v>,
{
    type Canonical = FrozenRunfiles;

    fn get_methods() -> Option<&'static Methods> {
        Some(RUNFILES_METHODS.methods())
    }
}

impl<'v> Runfiles<'v> {
    /// Runfiles without any file.
    pub(crate) fn empty(heap: Heap<'v>) -> Value<'v> {
        heap.alloc(Self { files: Depset::empty(heap), symlinks: Vec::new() })
    }

    /// Runfiles of a depset of files, and of files at paths of the tree.
    pub(crate) fn new(files: Value<'v>, symlinks: Vec<(String, FileValue)>) -> Self {
        Self { files, symlinks }
    }

    /// The depset of files.
    pub(crate) fn file_set(&self) -> Value<'v> {
        self.files
    }

    /// Files at paths of their own, below `main/`.
    pub(crate) fn symlinks(&self) -> &[(String, FileValue)] {
        &self.symlinks
    }

    /// Every file with its path in the runfiles tree.
    pub(crate) fn entries(
        &self,
        unfold: Unfold<'v, '_>,
    ) -> Result<Vec<(String, FileValue)>, RuleError> {
        let mut out = Vec::new();
        if let Some(set) = Depset::from_value(self.files) {
            for value in set.items(unfold)? {
                let file = FileValue::from_value(value)
                    .ok_or_else(|| wrong_type("runfiles", "files", value))?;
                out.push((file.runfiles_path(), file.clone()));
            }
        }
        out.extend(self.symlinks.iter().cloned());
        Ok(out)
    }

    fn merge_all(
        all: &[&Self],
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Runfiles<'v>> {
        let scope = RuleScope::of(eval)?;
        let transitive = all.iter().map(|r| r.files).collect();
        let sets = &mut scope.graph.borrow_mut().sets;
        let files = Depset::alloc(None, Vec::new(), transitive, Some(sets), eval.module())?;
        let symlinks = all.iter().flat_map(|r| r.symlinks.iter().cloned()).collect();
        Ok(RunfilesGen { files, symlinks })
    }
}

#[starlark_module]
fn runfiles_methods(builder: &mut MethodsBuilder) {
    /// The files as a depset.
    #[starlark(attribute)]
    fn files<'v>(this: &Runfiles<'v>) -> starlark::Result<Value<'v>> {
        Ok(this.files)
    }

    /// These runfiles and others.
    fn merge<'v>(
        this: &Runfiles<'v>,
        #[starlark(require = pos)] other: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        let Some(other) = Runfiles::from_value(other) else {
            return wrong_type("other", "runfiles", other).raise();
        };
        let merged = Runfiles::merge_all(&[this, other], eval)?;
        Ok(eval.heap().alloc(merged))
    }

    /// These runfiles and all of a list.
    fn merge_all<'v>(
        this: &Runfiles<'v>,
        #[starlark(require = pos)] others: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        let mut all = vec![this];
        for other in expect_sequence(others, "others")? {
            match Runfiles::from_value(*other) {
                Some(other) => all.push(other),
                None => return wrong_type("others", "a list of runfiles", *other).raise(),
            }
        }
        let merged = Runfiles::merge_all(&all, eval)?;
        Ok(eval.heap().alloc(merged))
    }
}
