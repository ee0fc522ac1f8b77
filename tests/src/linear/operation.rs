//! What one operation demands of a key, and what it does to it.

/// What a key holds: nothing, or the body with that id.
pub type Value = Option<u64>;

/// What must be true of a key at the moment an operation takes effect, as its answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Anything: a PUT, a DELETE.
    Any,
    /// Exactly that: what a read saw, what an If-Match or If-None-Match that succeeded demanded.
    Is(Value),
    /// Something: an If-None-Match that failed.
    Something,
    /// Something else: an If-Match that failed.
    SomethingBut(u64),
}

/// One operation on one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who did it; for messages.
    pub client: usize,
    /// When it was called, in any unit of one clock.
    pub called: u64,
    /// When its answer came; none: it was lost, and the operation takes effect at any time after its call, or never.
    pub returned: Option<u64>,
    /// What it demands.
    pub guard: Guard,
    /// What the key holds after it; none: what it held before.
    pub effect: Option<Value>,
    /// The version that it wrote or saw, if its answer told; ascends as the log does.
    pub version: Option<u64>,
}

impl Guard {
    /// Whether a key that holds `value` satisfies it.
    pub fn allows(self, value: Value) -> bool {
        match self {
            Guard::Any => true,
            Guard::Is(demanded) => value == demanded,
            Guard::Something => value.is_some(),
            Guard::SomethingBut(other) => value.is_some_and(|value| value != other),
        }
    }
}

impl Operation {
    /// Whether it leaves a key that holds `value` as it is.
    pub(crate) fn keeps(&self, value: Value) -> bool {
        self.effect.is_none_or(|effect| effect == value)
    }
}
