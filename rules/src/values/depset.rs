//! `depset`: sets that share structure and are flattened late.
//!
//! A set whose items are files and texts is also a set of the graph's arena, so that thousands of
//! actions can name it without copying it.

use std::fmt;

use allocative::Allocative;
use maestro_core::Item;
use maestro_core::depset::{Order, SetArena, SetId};
use starlark::coerce::Coerce;
use starlark::collections::SmallSet;
use starlark::environment::{GlobalsBuilder, Methods, MethodsBuilder};
use starlark::eval::Evaluator;
use starlark::starlark_complex_value;
use starlark::starlark_module;
use starlark::values::list::AllocList;
use starlark::values::{
    Freeze, FreezeResult, Freezer, Heap, NoSerialize, ProvidesStaticType, StarlarkPagablePanic,
    StarlarkValue, Trace, Value, ValueLike, starlark_value,
};

use super::file::FileValue;
use super::{expect_sequence, wrong_type};
use crate::error::{Code, RuleError};
use crate::scope::RuleScope;

/// Deepest nesting of sets; freezing recurses, so there is a bound.
pub(crate) const DEPTH_MAX: u32 = 3500;

/// A set with direct items and other sets.
#[derive(
    Debug, Trace, Coerce, ProvidesStaticType, NoSerialize, StarlarkPagablePanic, Allocative,
)]
#[repr(C)]
pub(crate) struct DepsetGen<V> {
    #[trace(static)]
    #[allocative(skip)]
    order: Option<Order>,
    direct: Vec<V>,
    transitive: Vec<V>,
    depth: u32,
    /// The same set in the arena, where it was made during analysis of files and texts.
    #[trace(static)]
    #[allocative(skip)]
    set: Option<SetId>,
}

starlark_complex_value!(pub(crate) Depset);

impl Freeze for Depset<'_> {
    type Frozen = FrozenDepset;

    fn freeze(self, freezer: &Freezer<'_>) -> FreezeResult<Self::Frozen> {
        let Self { order, direct, transitive, depth, set } = self;
        let direct = direct.freeze(freezer)?;
        let transitive = transitive.freeze(freezer)?;
        Ok(DepsetGen { order, direct, transitive, depth, set })
    }
}

impl<V> fmt::Display for DepsetGen<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "depset({} direct, {} transitive)", self.direct.len(), self.transitive.len())
    }
}

#[starlark_value(type = "depset")]
impl<'v, V: ValueLike<'v>> StarlarkValue<'v> for DepsetGen<V>
where
    Self: ProvidesStaticType<'v>,
{
    type Canonical = FrozenDepset;

    fn get_methods() -> Option<&'static Methods> {
        Some(DEPSET_METHODS.methods())
    }

    fn to_bool(&self) -> bool {
        // Empty sets are dropped when a set is made.
        !self.direct.is_empty() || !self.transitive.is_empty()
    }
}

impl<'v> Depset<'v> {
    /// A set of values; the arena's set is made where all are files or texts.
    ///
    /// A set that would only wrap another one is that other one, so that chains stay flat.
    pub(crate) fn alloc(
        order: Option<Order>,
        direct: Vec<Value<'v>>,
        mut transitive: Vec<Value<'v>>,
        arena: Option<&mut SetArena>,
        heap: Heap<'v>,
    ) -> Result<Value<'v>, RuleError> {
        let mut depth = 0;
        for value in &transitive {
            let Some(inner) = Depset::from_value(*value) else {
                return Err(wrong_type("transitive", "a list of depsets", *value));
            };
            depth = depth.max(inner.depth + 1);
            if let (Some(own), Some(theirs)) = (order, inner.order)
                && own != theirs
            {
                let message = "a depset cannot hold one of another order";
                return Err(RuleError::new(Code::Evaluation, message)
                    .hint("give both the same `order`, or leave one at `default`"));
            }
        }
        transitive.retain(|set| set.to_bool());
        if let ([], [only]) = (direct.as_slice(), transitive.as_slice())
            && Depset::from_value(*only).is_some_and(|set| set.order == order)
        {
            return Ok(*only);
        }
        if transitive.is_empty() {
            depth = 0;
        }
        if depth > DEPTH_MAX {
            let message = format!("depsets nest deeper than {DEPTH_MAX}");
            return Err(RuleError::new(Code::Limit, message)
                .hint("collect the parts in a list and call `depset` once"));
        }
        let set = arena.and_then(|arena| arena_set(order, &direct, &transitive, arena));
        Ok(heap.alloc(Self { order, direct, transitive, depth, set }))
    }

    /// The set in the arena; the items must be files and texts.
    pub(crate) fn arena_set(&self, arena: &mut SetArena) -> Result<SetId, RuleError> {
        if let Some(set) = self.set {
            return Ok(set);
        }
        let items = self.items()?;
        let items: Result<Vec<Item>, RuleError> =
            items.into_iter().map(|value| item(value, "depset")).collect();
        Ok(arena.add(self.order.unwrap_or_default(), items?, Vec::new()))
    }

    /// The items, each once, in the order of the set.
    pub(crate) fn items(&self) -> Result<Vec<Value<'v>>, RuleError> {
        let order = self.order.unwrap_or_default();
        let mut seen: SmallSet<Value<'v>> = SmallSet::new();
        let mut visited = std::collections::HashSet::new();
        let mut stack: Vec<(&Self, usize)> = vec![(self, 0)];
        let mut out = Vec::new();
        let mut emit = |list: &mut dyn Iterator<Item = Value<'v>>| -> Result<(), RuleError> {
            for value in list {
                let hashed = value.get_hashed().map_err(|_| {
                    RuleError::new(
                        Code::Evaluation,
                        format!("a `{}` cannot be an item of a depset", value.get_type()),
                    )
                })?;
                if seen.insert_hashed(hashed) {
                    out.push(value);
                }
            }
            Ok(())
        };
        while let Some((node, child)) = stack.pop() {
            if child == 0 && order == Order::Preorder {
                emit(&mut node.direct.iter().copied())?;
            }
            let next = match order {
                Order::Topological => node.transitive.iter().rev().nth(child),
                Order::Preorder | Order::Postorder => node.transitive.get(child),
            };
            if let Some(next) = next {
                stack.push((node, child + 1));
                if let Some(inner) = Depset::from_value(*next)
                    && visited.insert(next.identity())
                {
                    stack.push((inner, 0));
                }
            } else if order == Order::Postorder {
                emit(&mut node.direct.iter().copied())?;
            } else if order == Order::Topological {
                emit(&mut node.direct.iter().rev().copied())?;
            }
        }
        if order == Order::Topological {
            out.reverse();
        }
        Ok(out)
    }
}

fn arena_set(
    order: Option<Order>,
    direct: &[Value<'_>],
    transitive: &[Value<'_>],
    arena: &mut SetArena,
) -> Option<SetId> {
    let items: Option<Vec<Item>> = direct.iter().map(|v| item(*v, "").ok()).collect();
    let sets: Option<Vec<SetId>> =
        transitive.iter().map(|v| Depset::from_value(*v).and_then(|d| d.set)).collect();
    Some(arena.add(order.unwrap_or_default(), items?, sets?))
}

/// A file or text as an item of the graph.
pub(crate) fn item(value: Value<'_>, parameter: &str) -> Result<Item, RuleError> {
    if let Some(file) = FileValue::from_value(value) {
        return Ok(Item::Artifact(file.artifact()));
    }
    match value.unpack_str() {
        Some(text) => Ok(Item::Text(text.into())),
        None => Err(wrong_type(parameter, "files or strings", value)),
    }
}

/// A depset or list of files as a depset.
pub(crate) fn expect_depset<'v>(
    value: Value<'v>,
    parameter: &str,
    arena: &mut SetArena,
    heap: Heap<'v>,
) -> Result<Value<'v>, RuleError> {
    if Depset::from_value(value).is_some() {
        return Ok(value);
    }
    let items = expect_sequence(value, parameter)
        .map_err(|_| wrong_type(parameter, "a depset or a list", value))?;
    Depset::alloc(None, items.to_vec(), Vec::new(), Some(arena), heap)
}

starlark::methods_static!(DEPSET_METHODS = depset_methods);

#[starlark_module]
fn depset_methods(builder: &mut MethodsBuilder) {
    /// The items as a list, each once.
    fn to_list<'v>(this: Value<'v>) -> starlark::Result<AllocList<Vec<Value<'v>>>> {
        match Depset::from_value(this) {
            Some(set) => Ok(AllocList(set.items()?)),
            None => wrong_type("this", "a depset", this).raise(),
        }
    }
}

#[starlark_module]
pub(crate) fn depset_globals(builder: &mut GlobalsBuilder) {
    /// Makes a set of direct items and other sets.
    ///
    /// Args:
    ///   direct: items.
    ///   transitive: depsets of the same order.
    ///   order: `default`, `postorder`, `preorder` or `topological`.
    fn depset<'v>(
        direct: Option<Value<'v>>,
        #[starlark(require = named, default = "default")] order: &str,
        #[starlark(require = named)] transitive: Option<Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        let order = match order {
            "default" => None,
            "postorder" => Some(Order::Postorder),
            "preorder" => Some(Order::Preorder),
            "topological" => Some(Order::Topological),
            other => {
                let message = format!("`{other}` is no order of a depset");
                return RuleError::new(Code::Evaluation, message)
                    .hint("use `default`, `postorder`, `preorder` or `topological`")
                    .raise();
            }
        };
        let list = |value: Option<Value<'v>>, name: &str| match value {
            Some(value) if !value.is_none() => expect_sequence(value, name).map(<[_]>::to_vec),
            _ => Ok(Vec::new()),
        };
        let direct = list(direct, "direct")?;
        let transitive = list(transitive, "transitive")?;
        let heap = eval.heap();
        Ok(match RuleScope::of_opt(eval) {
            Some(scope) => {
                let sets = &mut scope.graph.borrow_mut().sets;
                Depset::alloc(order, direct, transitive, Some(sets), heap)?
            }
            None => Depset::alloc(order, direct, transitive, None, heap)?,
        })
    }
}
