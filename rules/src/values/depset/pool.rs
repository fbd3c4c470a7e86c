//! Where sets live that nest deeply: a flat list of nodes that name each other by number.
//!
//! The interpreter's collector and its freezing recurse over values, so sets that hold each other
//! as values can only nest as deep as the stack allows. Past [`NESTED_MAX`] a set is a number in
//! the pool of its evaluation: however long a chain gets, walking the pool is a loop.
//! There is one pool per evaluation, made when it is first needed; it is no value that build
//! files can reach.

use std::cell::RefCell;
use std::fmt;

use allocative::Allocative;
use starlark::environment::Module;
use starlark::values::{
    AllocValue, Freeze, FreezeResult, Freezer, FrozenValue, Heap, NoSerialize, ProvidesStaticType,
    StarlarkPagablePanic, StarlarkValue, Trace, Value, ValueLike, starlark_value,
};

/// From this depth on, sets of one evaluation live in its pool.
pub(crate) const NESTED_MAX: u32 = 200;

/// One set.
#[derive(Debug, Trace, Allocative)]
struct Node<V> {
    direct: Vec<V>,
    below: Vec<Below<V>>,
}

/// A set inside a set of the pool.
#[derive(Clone, Debug, Trace, Allocative)]
pub(super) enum Below<V> {
    /// Another set of the same pool.
    Here(u32),
    /// A set that is a value of its own, nested less deeply or frozen already.
    Value(V),
}

/// The pool of an evaluation that goes on.
#[derive(
    Debug, Default, Trace, ProvidesStaticType, NoSerialize, StarlarkPagablePanic, Allocative,
)]
pub(super) struct Pool<'v> {
    nodes: RefCell<Vec<Node<Value<'v>>>>,
}

/// The pool of an evaluation that has ended.
#[derive(Debug, ProvidesStaticType, NoSerialize, StarlarkPagablePanic, Allocative)]
pub(super) struct FrozenPool {
    nodes: Vec<Node<FrozenValue>>,
}

impl<'v> AllocValue<'v> for Pool<'v> {
    fn alloc_value(self, heap: Heap<'v>) -> Value<'v> {
        heap.alloc_complex(self)
    }
}

impl Freeze for Pool<'_> {
    type Frozen = FrozenPool;

    fn freeze(self, freezer: &Freezer<'_>) -> FreezeResult<Self::Frozen> {
        let node = |node: Node<Value<'_>>| -> FreezeResult<Node<FrozenValue>> {
            let below = node.below.into_iter().map(|below| match below {
                Below::Here(index) => Ok(Below::Here(index)),
                Below::Value(value) => Ok(Below::Value(value.freeze(freezer)?)),
            });
            let below = below.collect::<FreezeResult<Vec<_>>>()?;
            Ok(Node { direct: node.direct.freeze(freezer)?, below })
        };
        let nodes = self.nodes.into_inner().into_iter().map(node);
        Ok(FrozenPool { nodes: nodes.collect::<FreezeResult<Vec<_>>>()? })
    }
}

impl fmt::Display for Pool<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<pool of depsets>")
    }
}

impl fmt::Display for FrozenPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<pool of depsets>")
    }
}

#[starlark_value(type = "depset_pool")]
impl<'v> StarlarkValue<'v> for Pool<'v> {}

#[starlark_value(type = "depset_pool")]
impl<'v> StarlarkValue<'v> for FrozenPool {
    type Canonical = Pool<'v>;
}

/// The pool of the evaluation whose module this is; made where there is none yet.
pub(super) fn of_module<'v>(module: &Module<'v>) -> Value<'v> {
    match module.extra_value() {
        Some(value) if value.downcast_ref::<Pool<'v>>().is_some() => value,
        _ => {
            let value = module.heap().alloc(Pool::default());
            module.set_extra_value(value);
            value
        }
    }
}

/// Adds a set to a pool that is not frozen; returns its number.
pub(super) fn add<'v>(
    pool: Value<'v>,
    direct: Vec<Value<'v>>,
    below: Vec<Below<Value<'v>>>,
) -> u32 {
    let pool = pool.downcast_ref::<Pool<'v>>().expect("only pools under construction are added to");
    let mut nodes = pool.nodes.borrow_mut();
    nodes.push(Node { direct, below });
    u32::try_from(nodes.len() - 1).expect("fewer than 2^32 sets fit in memory")
}

/// The direct items of a set of a pool.
pub(super) fn direct<'v>(pool: Value<'v>, index: u32) -> Vec<Value<'v>> {
    match pool.downcast_ref::<Pool<'v>>() {
        Some(pool) => {
            let nodes = pool.nodes.borrow();
            nodes.get(index as usize).map(|node| node.direct.clone()).unwrap_or_default()
        }
        None => {
            let node = frozen(pool, index);
            node.map(|n| n.direct.iter().map(|v| v.to_value()).collect()).unwrap_or_default()
        }
    }
}

/// How many sets stand directly in a set of a pool.
pub(super) fn count<'v>(pool: Value<'v>, index: u32) -> usize {
    match pool.downcast_ref::<Pool<'v>>() {
        Some(pool) => pool.nodes.borrow().get(index as usize).map_or(0, |node| node.below.len()),
        None => frozen(pool, index).map_or(0, |node| node.below.len()),
    }
}

/// The set at a position in a set of a pool.
pub(super) fn below<'v>(pool: Value<'v>, index: u32, at: usize) -> Option<Below<Value<'v>>> {
    match pool.downcast_ref::<Pool<'v>>() {
        Some(pool) => pool.nodes.borrow().get(index as usize)?.below.get(at).cloned(),
        None => frozen(pool, index)?.below.get(at).map(|below| match below {
            Below::Here(index) => Below::Here(*index),
            Below::Value(value) => Below::Value(value.to_value()),
        }),
    }
}

/// Every item and every value that a pool holds.
pub(crate) fn values<'v>(pool: Value<'v>) -> Vec<Value<'v>> {
    let Some(pool) = pool.downcast_ref::<Pool<'v>>() else { return Vec::new() };
    let mut out = Vec::new();
    for node in pool.nodes.borrow().iter() {
        out.extend(node.direct.iter().copied());
        out.extend(node.below.iter().filter_map(|below| match below {
            Below::Here(_) => None,
            Below::Value(value) => Some(*value),
        }));
    }
    out
}

fn frozen<'v>(pool: Value<'v>, index: u32) -> Option<&'v Node<FrozenValue>> {
    pool.downcast_ref::<FrozenPool>()?.nodes.get(index as usize)
}
