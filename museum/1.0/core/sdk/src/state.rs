//! Keyed state as an author uses it. Fixed-width values are columns that the host lends for the call ([`Call::value`]): index them by ordinal, no call per row.
//! Other types, lists and maps cross as arrays, many keys at once. `slot` is the position of the state in the declaration.
#![allow(unsafe_code, reason = "calls the host's state table and writes to the columns that it lends")]

use crate::{Call, Error, ErrorCode, Result, TimeDomain, convert, transform::StateDeclaration, transform::StateKind};
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, PrimitiveArray};
use arrow_schema::{DataType, Field};
use standpipe_abi::{
    self as abi, ArrowArray, Status,
    state::{LentValues, StateTable},
};
use std::{marker::PhantomData, sync::Arc};

/// A fixed-width value per key. Handles of one state, and of several, may be used side by side.
pub struct ValueState<'a, T: ArrowPrimitiveType> {
    lent: Lent<T::Native>,
    call: PhantomData<&'a Call<'a>>,
}

impl<T: ArrowPrimitiveType> ValueState<'_, T> {
    /// The key's value.
    ///
    /// # Panics
    /// When there is no such ordinal in this call, as an index does.
    #[must_use]
    #[inline]
    #[track_caller]
    pub fn get(&self, ordinal: u32) -> Option<T::Native> {
        self.lent.get(ordinal)
    }

    /// Sets the key's value.
    ///
    /// # Panics
    /// As `get`.
    #[inline]
    #[track_caller]
    pub fn set(&self, ordinal: u32, value: T::Native) {
        self.lent.set(ordinal, value);
    }

    /// Removes the key's value.
    ///
    /// # Panics
    /// As `get`.
    #[inline]
    #[track_caller]
    pub fn clear(&self, ordinal: u32) {
        self.lent.clear(ordinal, T::Native::default());
    }
}

/// A boolean per key.
pub struct BooleanState<'a> {
    lent: Lent<u8>,
    call: PhantomData<&'a Call<'a>>,
}

impl BooleanState<'_> {
    /// The key's value.
    ///
    /// # Panics
    /// When there is no such ordinal in this call, as an index does.
    #[must_use]
    #[track_caller]
    pub fn get(&self, ordinal: u32) -> Option<bool> {
        self.lent.get(ordinal).map(|byte| byte != 0)
    }

    /// Sets the key's value.
    ///
    /// # Panics
    /// As `get`.
    #[track_caller]
    pub fn set(&self, ordinal: u32, value: bool) {
        self.lent.set(ordinal, u8::from(value));
    }

    /// Removes the key's value.
    ///
    /// # Panics
    /// As `get`.
    #[track_caller]
    pub fn clear(&self, ordinal: u32) {
        self.lent.clear(ordinal, 0);
    }
}

/// The columns that the host lends. Accessed by pointer only, never by reference: handles of the same slot share them.
struct Lent<V> {
    values: *mut V,
    validity: *mut u8,
    dirty: *mut u8,
    n: usize,
}

impl<V: Copy> Lent<V> {
    fn new(lent: &LentValues) -> Result<Self> {
        let wrong = |what: &str| Err(Error::new(ErrorCode::OUT_OF_RANGE, format!("the host lent columns {what}")));
        if lent.width as usize != size_of::<V>() {
            return wrong(&format!("of {} bytes a value, not {}", lent.width, size_of::<V>()));
        }
        if lent.n > 0 && (lent.values.is_null() || lent.validity.is_null() || lent.dirty.is_null()) {
            return wrong("that are null");
        }
        if lent.values.align_offset(align_of::<V>()) != 0 {
            return wrong("that are not aligned");
        }
        Ok(Self { values: lent.values.cast(), validity: lent.validity, dirty: lent.dirty, n: lent.n })
    }

    #[inline]
    #[track_caller]
    fn index(&self, ordinal: u32) -> usize {
        let index = ordinal as usize;
        assert!(index < self.n, "ordinal {ordinal} is not below {}, the number of keys in this call", self.n);
        index
    }

    #[inline]
    #[track_caller]
    fn get(&self, ordinal: u32) -> Option<V> {
        let index = self.index(ordinal);
        // SAFETY: the columns have `n` entries, valid for the call; `index` is below.
        unsafe { (*self.validity.add(index) != 0).then(|| *self.values.add(index)) }
    }

    #[inline]
    #[track_caller]
    fn set(&self, ordinal: u32, value: V) {
        let index = self.index(ordinal);
        // SAFETY: as in `get`; a call runs on one thread, and `Lent` is not `Send`.
        unsafe {
            *self.values.add(index) = value;
            *self.validity.add(index) = 1;
            *self.dirty.add(index) = 1;
        }
    }

    #[inline]
    #[track_caller]
    fn clear(&self, ordinal: u32, zero: V) {
        self.set(ordinal, zero);
        // SAFETY: as in `get`; `set` has checked the ordinal.
        unsafe { *self.validity.add(ordinal as usize) = 0 }
    }
}

impl Call<'_> {
    /// The values of a fixed-width value state, one per key of the call.
    ///
    /// # Errors
    /// When the slot is none, or its type is not `T`.
    pub fn value<T: ArrowPrimitiveType>(&self, slot: u32) -> Result<ValueState<'_, T>> {
        self.fixed(slot, &[StateKind::Value, StateKind::Reducing])
    }

    pub(crate) fn fixed<T: ArrowPrimitiveType>(&self, slot: u32, kinds: &[StateKind]) -> Result<ValueState<'_, T>> {
        let declared = self.declared(slot, kinds)?;
        if !PrimitiveArray::<T>::is_compatible(declared.field.data_type()) {
            return Err(wrong_type(slot, declared, &T::DATA_TYPE));
        }
        Ok(ValueState { lent: Lent::new(&self.lend(slot)?)?, call: PhantomData })
    }

    /// The values of a boolean value state.
    ///
    /// # Errors
    /// When the slot is none, or its type is not boolean.
    pub fn boolean(&self, slot: u32) -> Result<BooleanState<'_>> {
        let declared = self.declared(slot, &[StateKind::Value])?;
        if declared.field.data_type() != &DataType::Boolean {
            return Err(wrong_type(slot, declared, &DataType::Boolean));
        }
        Ok(BooleanState { lent: Lent::new(&self.lend(slot)?)?, call: PhantomData })
    }

    fn lend(&self, slot: u32) -> Result<LentValues> {
        let none = std::ptr::null_mut();
        let mut lent = LentValues { size: size_of::<LentValues>() as u32, width: 0, values: none, validity: none, dirty: none, n: 0 };
        // SAFETY: the table's function with its own context; the out parameters are valid.
        self.call(|t, error| unsafe { (t.value_lend)(t.ctx, slot, &raw mut lent, error) })?;
        Ok(lent)
    }

    /// Values of some keys, of any type; null where there is none.
    ///
    /// # Errors
    /// When the slot or an ordinal is none.
    pub fn values_get(&self, slot: u32, ordinals: &[u32]) -> Result<ArrayRef> {
        let declared = self.declared(slot, &[StateKind::Value, StateKind::Reducing])?;
        // SAFETY: as in `lend`; `ordinals` is alive for the call.
        self.fetch(declared.field.data_type(), |t, out, error| unsafe {
            (t.value_get)(t.ctx, slot, ordinals.as_ptr(), ordinals.len(), out, error)
        })
    }

    /// Sets values of some keys; a null removes. The last of a repeated ordinal holds.
    ///
    /// # Errors
    /// When the slot or an ordinal is none, or the array is not of the declared type.
    pub fn values_set(&self, slot: u32, ordinals: &[u32], values: &dyn Array) -> Result<()> {
        let declared = self.declared(slot, &[StateKind::Value, StateKind::Reducing])?;
        let mut values = sent(slot, declared, declared.field.data_type(), ordinals, values)?;
        // SAFETY: as in `values_get`; the array is moved out or dropped here.
        self.call(|t, error| unsafe { (t.value_set)(t.ctx, slot, ordinals.as_ptr(), ordinals.len(), &raw mut values, error) })
    }

    /// The lists of some keys: a list array, null where there is none.
    ///
    /// # Errors
    /// When the slot or an ordinal is none.
    pub fn list_get(&self, slot: u32, ordinals: &[u32]) -> Result<ArrayRef> {
        let declared = self.declared(slot, &[StateKind::List])?;
        let list = DataType::List(declared.field.clone());
        // SAFETY: as in `values_get`.
        self.fetch(&list, |t, out, error| unsafe { (t.list_get)(t.ctx, slot, ordinals.as_ptr(), ordinals.len(), out, error) })
    }

    /// Appends `values[i]` to the list of `ordinals[i]`, in order.
    ///
    /// # Errors
    /// As `values_set`.
    pub fn list_append(&self, slot: u32, ordinals: &[u32], values: &dyn Array) -> Result<()> {
        let declared = self.declared(slot, &[StateKind::List])?;
        let mut values = sent(slot, declared, declared.field.data_type(), ordinals, values)?;
        // SAFETY: as in `values_set`.
        self.call(|t, error| unsafe { (t.list_append)(t.ctx, slot, ordinals.as_ptr(), ordinals.len(), &raw mut values, error) })
    }

    /// Empties the lists of some keys.
    ///
    /// # Errors
    /// When the slot or an ordinal is none.
    pub fn list_clear(&self, slot: u32, ordinals: &[u32]) -> Result<()> {
        self.declared(slot, &[StateKind::List])?;
        // SAFETY: as in `values_get`.
        self.call(|t, error| unsafe { (t.list_clear)(t.ctx, slot, ordinals.as_ptr(), ordinals.len(), error) })
    }

    /// The values behind `keys[i]` in the map of `ordinals[i]`, null where there is none.
    ///
    /// # Errors
    /// As `values_set`.
    pub fn map_get(&self, slot: u32, ordinals: &[u32], keys: &dyn Array) -> Result<ArrayRef> {
        let declared = self.declared(slot, &[StateKind::Map])?;
        let [key, value] = entry(slot, declared)?;
        let mut keys = sent(slot, declared, key.data_type(), ordinals, keys)?;
        self.fetch(value.data_type(), |t, out, error| {
            // SAFETY: as in `values_set`.
            unsafe { (t.map_get)(t.ctx, slot, ordinals.as_ptr(), ordinals.len(), &raw mut keys, out, error) }
        })
    }

    /// Sets `keys[i]` to `values[i]` in the map of `ordinals[i]`.
    ///
    /// # Errors
    /// As `values_set`.
    pub fn map_put(&self, slot: u32, ordinals: &[u32], keys: &dyn Array, values: &dyn Array) -> Result<()> {
        let declared = self.declared(slot, &[StateKind::Map])?;
        let [key, value] = entry(slot, declared)?;
        let mut keys = sent(slot, declared, key.data_type(), ordinals, keys)?;
        let mut values = sent(slot, declared, value.data_type(), ordinals, values)?;
        self.call(|t, error| {
            // SAFETY: as in `values_set`.
            unsafe { (t.map_put)(t.ctx, slot, ordinals.as_ptr(), ordinals.len(), &raw mut keys, &raw mut values, error) }
        })
    }

    /// Removes `keys[i]` from the map of `ordinals[i]`.
    ///
    /// # Errors
    /// As `values_set`.
    pub fn map_remove(&self, slot: u32, ordinals: &[u32], keys: &dyn Array) -> Result<()> {
        let declared = self.declared(slot, &[StateKind::Map])?;
        let [key, _] = entry(slot, declared)?;
        let mut keys = sent(slot, declared, key.data_type(), ordinals, keys)?;
        // SAFETY: as in `values_set`.
        self.call(|t, error| unsafe { (t.map_remove)(t.ctx, slot, ordinals.as_ptr(), ordinals.len(), &raw mut keys, error) })
    }

    /// At most `limit` entries of one key's map, in the order of its keys, from the key `from[0]` on (`None`: from the first): a struct array of `key` and `value`.
    ///
    /// # Errors
    /// As `values_set`.
    pub fn map_scan(&self, slot: u32, ordinal: u32, from: Option<&dyn Array>, limit: usize) -> Result<ArrayRef> {
        let declared = self.declared(slot, &[StateKind::Map])?;
        let [key, _] = entry(slot, declared)?;
        let mut from = from.map(|from| sent(slot, declared, key.data_type(), &[ordinal], from)).transpose()?.unwrap_or_default();
        self.fetch(declared.field.data_type(), |t, out, error| {
            // SAFETY: as in `values_set`.
            unsafe { (t.map_scan)(t.ctx, slot, ordinal, &raw mut from, limit, out, error) }
        })
    }

    /// Sets a timer for `ordinals[i]` at `times[i]`, microseconds since the epoch. A timer is one per key, slot, domain and time; `slot` is the transform's own number
    /// for its purpose.
    ///
    /// # Errors
    /// When an ordinal is none, or the slices differ in length.
    pub fn set_timer(&self, domain: TimeDomain, slot: u32, ordinals: &[u32], times: &[i64]) -> Result<()> {
        same_length(ordinals.len(), times.len())?;
        self.call(|t, error| {
            // SAFETY: as in `values_get`; the slices have the same length.
            unsafe { (t.timer_set)(t.ctx, domain.to_abi(), slot, ordinals.as_ptr(), times.as_ptr(), ordinals.len(), error) }
        })
    }

    /// Removes timers.
    ///
    /// # Errors
    /// As `set_timer`.
    pub fn delete_timer(&self, domain: TimeDomain, slot: u32, ordinals: &[u32], times: &[i64]) -> Result<()> {
        same_length(ordinals.len(), times.len())?;
        self.call(|t, error| {
            // SAFETY: as in `set_timer`.
            unsafe { (t.timer_delete)(t.ctx, domain.to_abi(), slot, ordinals.as_ptr(), times.as_ptr(), ordinals.len(), error) }
        })
    }

    fn declared(&self, slot: u32, kinds: &[StateKind]) -> Result<&StateDeclaration> {
        let Some(declared) = self.states.get(slot as usize) else {
            return Err(Error::new(ErrorCode::OUT_OF_RANGE, format!("there is no state {slot}, only {} are declared", self.states.len())));
        };
        if !kinds.contains(&declared.kind) {
            let kind = format!("{:?}", declared.kind).to_lowercase();
            return Err(Error::new(ErrorCode::OUT_OF_RANGE, format!("state {:?} is a {kind} state, used as another", declared.name)));
        }
        Ok(declared)
    }

    fn call(&self, function: impl FnOnce(&StateTable, *mut abi::Error) -> Status) -> Result<()> {
        let mut error = abi::Error::empty();
        match function(&self.keyed()?.state, &raw mut error) {
            Status::OK => Ok(()),
            _ => Err(Error::from_abi(&error)),
        }
    }

    fn fetch(
        &self,
        data_type: &DataType,
        function: impl FnOnce(&StateTable, *mut ArrowArray, *mut abi::Error) -> Status,
    ) -> Result<ArrayRef> {
        let mut out = ArrowArray::empty();
        self.call(|table, error| function(table, &raw mut out, error))?;
        // SAFETY: by contract the host gives an array of the declared type.
        unsafe { convert::import_array(out, data_type) }
    }
}

impl TimeDomain {
    /// The `TIMER_` constant.
    #[must_use]
    pub const fn to_abi(self) -> u32 {
        match self {
            Self::EventTime => abi::state::TIMER_EVENT_TIME,
            Self::ProcessingTime => abi::state::TIMER_PROCESSING_TIME,
        }
    }

    /// `None` for a domain of a later minor version.
    #[must_use]
    pub const fn from_abi(domain: u32) -> Option<Self> {
        match domain {
            abi::state::TIMER_EVENT_TIME => Some(Self::EventTime),
            abi::state::TIMER_PROCESSING_TIME => Some(Self::ProcessingTime),
            _ => None,
        }
    }
}

fn sent(slot: u32, declared: &StateDeclaration, data_type: &DataType, ordinals: &[u32], values: &dyn Array) -> Result<ArrowArray> {
    same_length(ordinals.len(), values.len())?;
    if values.data_type() != data_type {
        return Err(wrong_type(slot, declared, values.data_type()));
    }
    Ok(convert::export_array(values))
}

fn same_length(ordinals: usize, values: usize) -> Result<()> {
    if ordinals == values {
        return Ok(());
    }
    Err(Error::new(ErrorCode::OUT_OF_RANGE, format!("{ordinals} ordinals, but {values} values")))
}

fn wrong_type(slot: u32, declared: &StateDeclaration, used: &DataType) -> Error {
    let message = format!("state {slot} ({:?}) is declared as {}, used as {used}", declared.name, declared.field.data_type());
    Error::new(ErrorCode::OUT_OF_RANGE, message)
}

/// The key's and the value's field of a map state.
fn entry(slot: u32, declared: &StateDeclaration) -> Result<[Arc<Field>; 2]> {
    match declared.field.data_type() {
        DataType::Struct(fields) if fields.len() == 2 => return Ok([fields[0].clone(), fields[1].clone()]),
        _ => {}
    }
    Err(Error::new(ErrorCode::OUT_OF_RANGE, format!("state {slot} ({:?}) is no struct of key and value", declared.name)))
}
