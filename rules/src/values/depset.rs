//! `depset`: sets that share structure and are flattened late.
//!
//! A set whose items are files and texts is also a set of the graph's arena, so that thousands of
//! actions can name it without copying it. Neither depth nor size has a bound of its own: sets
//! that nest deeply live in the [`pool`] of their evaluation, and every walk is a loop.

pub(crate) mod pool;

use std::fmt;

use allocative::Allocative;
use maestro_core::Item;
use maestro_core::depset::{Order, SetArena, SetId};
use starlark::coerce::Coerce;
use starlark::collections::SmallSet;
use starlark::environment::{GlobalsBuilder, Methods, MethodsBuilder, Module};
use starlark::eval::Evaluator;
use starlark::starlark_complex_value;
use starlark::starlark_module;
use starlark::values::list::AllocList;
use starlark::values::{
    Freeze, FreezeResult, Freezer, Heap, NoSerialize, ProvidesStaticType, StarlarkPagablePanic,
    StarlarkValue, Trace, Value, ValueIdentity, ValueLike, starlark_value,
};

use self::pool::{Below, NESTED_MAX};
use super::file::FileValue;
use super::{expect_sequence, wrong_type};
use crate::error::{Code, RuleError};
use crate::scope::RuleScope;

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
    /// Sets; where `pooled`, the pool alone.
    transitive: Vec<V>,
    /// The number in the pool, for a set that lives there.
    pooled: Option<u32>,
    /// How deep sets of the same evaluation nest in it; frozen ones count nothing.
    depth: u32,
    /// The same set in the arena, where it was made during analysis of files and texts.
    #[trace(static)]
    #[allocative(skip)]
    set: Option<SetId>,
    /// Whether only the arena knows what is in it: it comes from an earlier build.
    recalled: bool,
}

starlark_complex_value!(pub(crate) Depset);

impl Freeze for Depset<'_> {
    type Frozen = FrozenDepset;

    fn freeze(self, freezer: &Freezer<'_>) -> FreezeResult<Self::Frozen> {
        let Self { order, direct, transitive, pooled, depth: _, set, recalled } = self;
        let direct = direct.freeze(freezer)?;
        let transitive = transitive.freeze(freezer)?;
        Ok(DepsetGen { order, direct, transitive, pooled, depth: 0, set, recalled })
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
        self.recalled || !self.direct.is_empty() || !self.transitive.is_empty()
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
        module: &Module<'v>,
    ) -> Result<Value<'v>, RuleError> {
        let mut depth = 0;
        for value in &transitive {
            let Some(inner) = Depset::from_value(*value) else {
                return Err(wrong_type("transitive", "a list of depsets", *value));
            };
            if value.unpack_frozen().is_none() && inner.to_bool() {
                depth = depth.max(inner.depth + 1);
            }
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
        let set = arena.and_then(|arena| arena_set(order, &direct, &transitive, arena));
        let made = match depth > NESTED_MAX {
            false => {
                let pooled = None;
                Self { order, direct, transitive, pooled, depth, set, recalled: false }
            }
            true => {
                let pool = pool::of_module(module);
                let below = transitive.into_iter().map(|value| below(pool, value)).collect();
                let pooled = Some(pool::add(pool, direct, below));
                let (direct, transitive) = (Vec::new(), vec![pool]);
                Self { order, direct, transitive, pooled, depth, set, recalled: false }
            }
        };
        Ok(module.heap().alloc(made))
    }

    /// A set of direct items alone.
    pub(crate) fn flat(direct: Vec<Value<'v>>, arena: &mut SetArena, heap: Heap<'v>) -> Value<'v> {
        let set = arena_set(None, &direct, &[], arena);
        let (order, transitive, pooled, depth) = (None, Vec::new(), None, 0);
        heap.alloc(Self { order, direct, transitive, pooled, depth, set, recalled: false })
    }

    /// What is in one of two sets, either of which another evaluation has made.
    pub(crate) fn union(
        sets: [Value<'v>; 2],
        arena: &mut SetArena,
        heap: Heap<'v>,
    ) -> Result<Value<'v>, RuleError> {
        let of = |value: Value<'v>| {
            let set = Depset::from_value(value);
            set.ok_or_else(|| wrong_type("transitive", "a depset", value))
        };
        let depth = of(sets[0])?.depth.max(of(sets[1])?.depth) + 1;
        let order = of(sets[0])?.order;
        let transitive = sets.to_vec();
        let set = arena_set(order, &[], &transitive, arena);
        let (direct, pooled) = (Vec::new(), None);
        Ok(heap.alloc(Self { order, direct, transitive, pooled, depth, set, recalled: false }))
    }

    /// A set of an earlier build; where no parts are given, only the arena knows what is in it.
    pub(crate) fn recall(
        order: Option<Order>,
        parts: Option<(Vec<Value<'v>>, Vec<Value<'v>>)>,
        set: Option<SetId>,
        heap: Heap<'v>,
    ) -> Value<'v> {
        let recalled = parts.is_none();
        let (direct, transitive) = parts.unwrap_or_default();
        heap.alloc(Self { order, direct, transitive, pooled: None, depth: 0, set, recalled })
    }

    /// The order that was asked for.
    pub(crate) fn order(&self) -> Option<Order> {
        self.order
    }

    /// The same set in the arena, if it has one.
    pub(crate) fn in_arena(&self) -> Option<SetId> {
        self.set
    }

    /// Its items and sets; `None` where they are no values of their own.
    pub(crate) fn shape(&self) -> Option<(&[Value<'v>], &[Value<'v>])> {
        let plain = self.pooled.is_none() && !self.recalled;
        plain.then_some((&self.direct, &self.transitive))
    }

    /// The set without any item.
    pub(crate) fn empty(heap: Heap<'v>) -> Value<'v> {
        let (direct, transitive) = (Vec::new(), Vec::new());
        Self::recall(None, Some((direct, transitive)), None, heap)
    }

    /// The values that the set holds itself, for checks of how deep values nest.
    pub(crate) fn parts(&self) -> Vec<Value<'v>> {
        match (self.pooled, self.transitive.first()) {
            (Some(_), Some(pool)) => pool::values(*pool),
            _ => self.direct.iter().chain(&self.transitive).copied().collect(),
        }
    }

    /// The set in the arena; the items must be files and texts.
    pub(crate) fn arena_set(&self, arena: &mut SetArena) -> Result<SetId, RuleError> {
        if let Some(set) = self.set {
            return Ok(set);
        }
        let items = self.items(Unfold::LIVE)?;
        let items: Result<Vec<Item>, RuleError> =
            items.into_iter().map(|value| item(value, "depset")).collect();
        Ok(arena.add(self.order.unwrap_or_default(), items?, Vec::new()))
    }

    /// The items, each once, in the order of the set.
    pub(crate) fn items(&self, unfold: Unfold<'v, '_>) -> Result<Vec<Value<'v>>, RuleError> {
        let order = self.order.unwrap_or_default();
        let mut seen: SmallSet<Value<'v>> = SmallSet::new();
        let mut visited = std::collections::HashSet::new();
        let mut stack: Vec<(Walk<'v, '_>, usize)> = vec![(Walk::of(self), 0)];
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
                emit(&mut node.direct(unfold)?.into_iter())?;
            }
            let next = match order {
                Order::Topological => node.count(unfold).checked_sub(child + 1),
                Order::Preorder | Order::Postorder => Some(child),
            };
            if let Some(next) = next.and_then(|at| node.below(at, unfold)) {
                stack.push((node, child + 1));
                if next.key().is_none_or(|key| visited.insert(key)) {
                    stack.push((next, 0));
                }
            } else if order == Order::Postorder {
                emit(&mut node.direct(unfold)?.into_iter())?;
            } else if order == Order::Topological {
                emit(&mut node.direct(unfold)?.into_iter().rev())?;
            }
        }
        if order == Order::Topological {
            out.reverse();
        }
        Ok(out)
    }
}

/// What it takes to tell the items of sets that only the graph knows.
#[derive(Clone, Copy)]
pub(crate) struct Unfold<'v, 'a>(Option<(Heap<'v>, &'a RuleScope)>);

impl<'v, 'a> Unfold<'v, 'a> {
    /// For sets that were made by this evaluation.
    const LIVE: Self = Self(None);

    /// For the sets that an analysis meets.
    pub(crate) fn new(heap: Heap<'v>, scope: &'a RuleScope) -> Self {
        Self(Some((heap, scope)))
    }

    /// As the evaluation goes.
    pub(crate) fn of(eval: &Evaluator<'v, 'a, '_>) -> Self {
        Self(RuleScope::of_opt(eval).map(|scope| (eval.heap(), scope)))
    }

    fn direct(self, set: SetId) -> Result<Vec<Value<'v>>, RuleError> {
        let (heap, scope) = self.0.ok_or_else(out_of_analysis)?;
        let items = scope.graph.borrow().sets.node(set).direct.clone();
        let value = |item: &Item| match item {
            Item::Text(text) => heap.alloc(&**text),
            Item::Artifact(id) => heap.alloc(scope.file(*id)),
        };
        Ok(items.iter().map(value).collect())
    }

    fn below(self, set: SetId, at: usize) -> Option<SetId> {
        let (_, scope) = self.0?;
        scope.graph.borrow().sets.node(set).transitive.get(at).copied()
    }

    fn count(self, set: SetId) -> usize {
        self.0.map_or(0, |(_, scope)| scope.graph.borrow().sets.node(set).transitive.len())
    }
}

fn out_of_analysis() -> RuleError {
    RuleError::new(Code::Internal, "a set of an earlier build is asked for outside of analysis")
}

/// A set on the way through one, wherever it lives.
#[derive(Clone, Copy)]
enum Walk<'v, 'a> {
    /// The set that is walked.
    Root(&'a Depset<'v>),
    /// A value in it.
    Value(Value<'v>, &'v Depset<'v>),
    /// A set of a pool.
    Pooled(Value<'v>, u32),
    /// A set of the graph.
    Recalled(SetId),
}

/// What tells a set from others on the way.
#[derive(PartialEq, Eq, Hash)]
enum WalkKey<'v> {
    Value(ValueIdentity<'v>, Option<u32>),
    Recalled(SetId),
}

impl<'v, 'a> Walk<'v, 'a> {
    fn of(set: &'a Depset<'v>) -> Self {
        match (set.pooled, set.transitive.first(), set.set) {
            (_, _, Some(id)) if set.recalled => Self::Recalled(id),
            (Some(index), Some(pool), _) => Self::Pooled(*pool, index),
            _ => Self::Root(set),
        }
    }

    fn of_value(value: Value<'v>) -> Option<Self> {
        let set = Depset::from_value(value)?;
        Some(match (set.pooled, set.transitive.first(), set.set) {
            (_, _, Some(id)) if set.recalled => Self::Recalled(id),
            (Some(index), Some(pool), _) => Self::Pooled(*pool, index),
            _ => Self::Value(value, set),
        })
    }

    /// What tells it from others; the root is met only once.
    fn key(self) -> Option<WalkKey<'v>> {
        match self {
            Self::Root(_) => None,
            Self::Value(value, _) => Some(WalkKey::Value(value.identity(), None)),
            Self::Pooled(pool, index) => Some(WalkKey::Value(pool.identity(), Some(index))),
            Self::Recalled(id) => Some(WalkKey::Recalled(id)),
        }
    }

    fn direct(self, unfold: Unfold<'v, '_>) -> Result<Vec<Value<'v>>, RuleError> {
        Ok(match self {
            Self::Root(set) => set.direct.clone(),
            Self::Value(_, set) => set.direct.clone(),
            Self::Pooled(pool, index) => pool::direct(pool, index),
            Self::Recalled(id) => unfold.direct(id)?,
        })
    }

    fn count(self, unfold: Unfold<'v, '_>) -> usize {
        match self {
            Self::Root(set) => set.transitive.len(),
            Self::Value(_, set) => set.transitive.len(),
            Self::Pooled(pool, index) => pool::count(pool, index),
            Self::Recalled(id) => unfold.count(id),
        }
    }

    fn below(self, at: usize, unfold: Unfold<'v, '_>) -> Option<Self> {
        match self {
            Self::Root(set) => Self::of_value(*set.transitive.get(at)?),
            Self::Value(_, set) => Self::of_value(*set.transitive.get(at)?),
            Self::Pooled(pool, index) => match pool::below(pool, index, at)? {
                Below::Here(index) => Some(Self::Pooled(pool, index)),
                Below::Value(value) => Self::of_value(value),
            },
            Self::Recalled(id) => unfold.below(id, at).map(Self::Recalled),
        }
    }
}

/// A set as a part of one that goes into `pool`.
fn below<'v>(pool: Value<'v>, value: Value<'v>) -> Below<Value<'v>> {
    let set = Depset::from_value(value);
    let own = set.filter(|set| set.transitive.first().is_some_and(|p| p.ptr_eq(pool)));
    match own.and_then(|set| set.pooled) {
        Some(index) => Below::Here(index),
        None => Below::Value(value),
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
    Ok(Depset::flat(items.to_vec(), arena, heap))
}

starlark::methods_static!(DEPSET_METHODS = depset_methods);

#[starlark_module]
fn depset_methods(builder: &mut MethodsBuilder) {
    /// The items as a list, each once.
    fn to_list<'v>(
        this: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<AllocList<Vec<Value<'v>>>> {
        match Depset::from_value(this) {
            Some(set) => Ok(AllocList(set.items(Unfold::of(eval))?)),
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
        let module = eval.module();
        Ok(match RuleScope::of_opt(eval) {
            Some(scope) => {
                let sets = &mut scope.graph.borrow_mut().sets;
                Depset::alloc(order, direct, transitive, Some(sets), module)?
            }
            None => Depset::alloc(order, direct, transitive, None, module)?,
        })
    }
}
