//! Aggregate functions: states that are written and merged are as good as rows, and looking at them changes nothing.

use crate::{
    check::{Check, Outcome, Stop, refused_or_taken},
    functions::{self, arguments, columns, cut, fields, honest, null_columns, texts},
    process::grows,
    rows::difference,
    suite::{Case, Settings, Unusable},
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::DataType;
use standpipe_sdk::hosting::{AggregateFunction, AggregateGroups, AggregateKind};

/// The checks of an aggregate function, in their order.
pub(crate) const CHECKS: &[Check<AggregateCase>] = &[
    Check { name: "configuration", about: "what is no configuration is refused, with a line and not with a panic", run: configuration },
    Check { name: "bind", about: "the same question has the same answer", run: bind },
    Check { name: "arguments", about: "arguments that it does not take are refused, with a line and not with a panic", run: odd_arguments },
    Check { name: "result", about: "results and states have the types, the rows and the nullability that were bound", run: result },
    Check { name: "consumes-nothing", about: "looking at results and states changes nothing", run: consumes_nothing },
    Check { name: "merge", about: "from states that are merged it goes on as if nothing had happened", run: merge },
    Check { name: "batch-sizes", about: "it does not matter how rows are cut into batches", run: batch_sizes },
    Check { name: "groups", about: "groups do not touch each other, whatever their numbers are", run: groups },
    Check { name: "forget", about: "a group that is forgotten has no rows", run: forget },
    Check { name: "retract", about: "rows that are taken back have never been there", run: retract },
    Check { name: "nonsense", about: "states that make no sense are errors, not panics", run: nonsense },
    Check { name: "release", about: "every array of the host is released", run: release },
    Check { name: crate::LEAKS, about: "memory does not grow with the rows", run: leaks },
];

const ROWS: usize = 96;
/// Groups of the rows, in turns.
const GROUPS: u32 = 5;

/// An aggregate function and what it is tried with.
pub(crate) struct AggregateCase {
    kind: AggregateKind,
    settings: Settings,
    types: Vec<DataType>,
}

impl Case for AggregateCase {
    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn declares(&self) -> Vec<String> {
        self.bound().map(|function| vec![format!("{:?}", function.volatility()).to_lowercase()]).unwrap_or_default()
    }
}

pub(crate) fn case(kind: AggregateKind, settings: Settings) -> Result<AggregateCase, Unusable> {
    let (types, _) = arguments(&settings, |fields| kind.bind(&settings.config, fields))?;
    Ok(AggregateCase { kind, settings, types })
}

impl AggregateCase {
    fn bound(&self) -> Result<AggregateFunction, Stop> {
        self.kind.bind(&self.settings.config, &fields(&self.types)).map_err(|error| Stop::from(error).during("bind"))
    }

    fn columns(&self, function: &AggregateFunction) -> Result<Vec<ArrayRef>, Stop> {
        columns(function.arguments(), ROWS, &mut self.settings.random())
    }

    /// All groups after all rows, and what made them.
    fn folded(&self, function: &AggregateFunction) -> Result<AggregateGroups, Stop> {
        let mut folded = empty(function)?;
        update(&mut folded, &numbers(0, ROWS), &self.columns(function)?)?;
        Ok(folded)
    }
}

fn empty(function: &AggregateFunction) -> Result<AggregateGroups, Stop> {
    function.groups().map_err(|error| Stop::from(error).during("create of an accumulator"))
}

/// The groups of rows.
fn numbers(from: usize, rows: usize) -> Vec<u32> {
    (from..from + rows).map(|row| row as u32 % GROUPS).collect()
}

fn all() -> Vec<u32> {
    (0..GROUPS).collect()
}

fn update(folded: &mut AggregateGroups, groups: &[u32], arguments: &[ArrayRef]) -> Result<(), Stop> {
    folded.update(groups, arguments).map_err(|error| Stop::from(error).during("update"))
}

fn merged(folded: &mut AggregateGroups, groups: &[u32], states: &[ArrayRef]) -> Result<(), Stop> {
    folded.merge(groups, states).map_err(|error| Stop::from(error).during("merge"))
}

fn state(folded: &AggregateGroups, groups: &[u32]) -> Result<Vec<ArrayRef>, Stop> {
    let state = folded.state(groups).map_err(|error| Stop::from(error).during("state"))?;
    for (field, column) in folded.function().state().fields().iter().zip(&state) {
        honest(&format!("the column {:?} of the state", field.name()), field, column)?;
    }
    Ok(state)
}

fn evaluate(folded: &AggregateGroups, groups: &[u32]) -> Result<Vec<String>, Stop> {
    let result = folded.evaluate(groups).map_err(|error| Stop::from(error).during("evaluate"))?;
    honest("the result", folded.function().result(), &result)?;
    texts(&result)
}

fn same(what: &str, expected: &[String], found: &[String]) -> Result<(), Stop> {
    difference(expected, found).map_or(Ok(()), |difference| Err(Stop::fail(format!("{what} it gives other results: {difference}"))))
}

fn configuration(case: &AggregateCase) -> Outcome {
    functions::configuration(&case.settings, case.kind.config_schema(), &case.types, |config, given| case.kind.bind(config, given))
}

fn odd_arguments(case: &AggregateCase) -> Outcome {
    functions::odd_arguments(&case.settings, |config, given| case.kind.bind(config, given))
}

fn bind(case: &AggregateCase) -> Outcome {
    let said = |function: &AggregateFunction| {
        let arguments: Vec<DataType> = function.arguments().cloned().collect();
        (
            arguments,
            function.result().data_type().clone(),
            function.result().is_nullable(),
            function.volatility(),
            function.state_names(),
            function.state().clone(),
        )
    };
    let first = said(&case.bound()?);
    for _ in 0..3 {
        let again = said(&case.bound()?);
        if again != first {
            return Err(Stop::fail(format!("binds the same call to something else: {again:?} instead of {first:?}")));
        }
    }
    let wanted = case
        .kind
        .bind(&case.settings.config, &fields(&first.0))
        .map_err(|error| Stop::from(error).during("bind to the types that it wanted"))?;
    if said(&wanted) != first {
        return Err(Stop::fail(format!("bound to the types that it wanted it says {:?} instead of {first:?}", said(&wanted))));
    }
    let shown = case.types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    Ok(format!("({shown}) gives {}, with the state {}, five times", first.1, first.4.join(", ")))
}

fn result(case: &AggregateCase) -> Outcome {
    let function = case.bound()?;
    let mut folded = empty(&function)?;
    // Of groups that it was not told of, of no rows, of nulls alone, of rows.
    evaluate(&folded, &all()).map_err(|stop| stop.during("groups without rows"))?;
    state(&folded, &all()).map_err(|stop| stop.during("groups without rows"))?;
    evaluate(&folded, &[]).map_err(|stop| stop.during("no groups"))?;
    state(&folded, &[]).map_err(|stop| stop.during("no groups"))?;
    let arguments = case.columns(&function)?;
    update(&mut folded, &[], &cut(&arguments, 0, 0)).map_err(|stop| stop.during("a batch without rows"))?;
    update(&mut folded, &[0, 1, 2], &null_columns(function.arguments(), 3)).map_err(|stop| stop.during("rows of nulls"))?;
    evaluate(&folded, &all())?;
    update(&mut folded, &numbers(10, 20), &cut(&arguments, 10, 20)).map_err(|stop| stop.during("rows that are cut out"))?;
    update(&mut folded, &numbers(0, ROWS), &arguments)?;
    evaluate(&folded, &all())?;
    state(&folded, &all())?;
    Ok(format!("{} for groups without rows, with nulls, with rows", function.result().data_type()))
}

fn consumes_nothing(case: &AggregateCase) -> Outcome {
    let function = case.bound()?;
    let folded = case.folded(&function)?;
    let first = evaluate(&folded, &all())?;
    state(&folded, &all())?;
    same("after it was looked at", &first, &evaluate(&folded, &all())?)?;
    // In between, and on: as a window does that gives its result early.
    let (mut looked_at, arguments) = (empty(&function)?, case.columns(&function)?);
    for from in (0..ROWS).step_by(8) {
        update(&mut looked_at, &numbers(from, 8), &cut(&arguments, from, 8))?;
        evaluate(&looked_at, &all())?;
        state(&looked_at, &all())?;
    }
    let mut plain = empty(&function)?;
    for from in (0..ROWS).step_by(8) {
        update(&mut plain, &numbers(from, 8), &cut(&arguments, from, 8))?;
    }
    same("when it is looked at between rows", &evaluate(&plain, &all())?, &evaluate(&looked_at, &all())?)?;
    Ok(format!("{} looks in between, and the results are the same", ROWS / 8))
}

fn merge(case: &AggregateCase) -> Outcome {
    let function = case.bound()?;
    let arguments = case.columns(&function)?;
    let uninterrupted = {
        let mut folded = empty(&function)?;
        for (from, rows) in [(0, 40), (40, ROWS - 40)] {
            update(&mut folded, &numbers(from, rows), &cut(&arguments, from, rows))?;
        }
        evaluate(&folded, &all())?
    };
    // A restart: what was written is merged into an accumulator without rows.
    let mut first = empty(&function)?;
    update(&mut first, &numbers(0, 40), &cut(&arguments, 0, 40))?;
    let written = state(&first, &all())?;
    drop(first);
    let mut second = empty(&case.bound()?)?;
    merged(&mut second, &all(), &written)?;
    update(&mut second, &numbers(40, ROWS - 40), &cut(&arguments, 40, ROWS - 40))?;
    same("after a restart", &uninterrupted, &evaluate(&second, &all())?)?;
    // A state of no rows adds nothing.
    let nothing = state(&empty(&function)?, &all())?;
    merged(&mut second, &all(), &nothing)?;
    same("after states without rows were merged", &uninterrupted, &evaluate(&second, &all())?)?;
    // Two accumulators that each had a part.
    let (mut one, mut other) = (empty(&function)?, empty(&function)?);
    update(&mut one, &numbers(0, 40), &cut(&arguments, 0, 40))?;
    update(&mut other, &numbers(40, ROWS - 40), &cut(&arguments, 40, ROWS - 40))?;
    merged(&mut one, &all(), &state(&other, &all())?)?;
    same("when two accumulators become one", &uninterrupted, &evaluate(&one, &all())?)?;
    Ok(format!("{ROWS} rows: with a restart, in two accumulators, and with states without rows"))
}

fn batch_sizes(case: &AggregateCase) -> Outcome {
    let function = case.bound()?;
    let whole = evaluate(&case.folded(&function)?, &all())?;
    let arguments = case.columns(&function)?;
    let mut single = empty(&function)?;
    for row in 0..ROWS {
        update(&mut single, &numbers(row, 1), &cut(&arguments, row, 1))?;
        update(&mut single, &[], &cut(&arguments, row, 0))?;
    }
    same("when rows come one by one", &whole, &evaluate(&single, &all())?)?;
    Ok(format!("{ROWS} rows: all at once and one by one"))
}

fn groups(case: &AggregateCase) -> Outcome {
    let function = case.bound()?;
    let dense = evaluate(&case.folded(&function)?, &all())?;
    let arguments = case.columns(&function)?;
    // Numbers with gaps, and in another order.
    let sparse = |group: u32| [90_000, 3, 500, 12, 7][group as usize % 5];
    let mut folded = empty(&function)?;
    update(&mut folded, &numbers(0, ROWS).into_iter().map(sparse).collect::<Vec<_>>(), &arguments)?;
    let wanted: Vec<u32> = all().into_iter().map(sparse).collect();
    same("when groups have other numbers", &dense, &evaluate(&folded, &wanted)?)?;
    let none = evaluate(&empty(&function)?, &[0])?;
    same("of a group between them that has no rows", &none, &evaluate(&folded, &[4])?)?;
    let mut backwards = wanted.clone();
    backwards.reverse();
    let mut expected = dense.clone();
    expected.reverse();
    same("when groups are asked for in another order", &expected, &evaluate(&folded, &backwards)?)?;
    Ok("5 groups from 3 to 90000, in two orders, and one between them without rows".to_owned())
}

fn forget(case: &AggregateCase) -> Outcome {
    let function = case.bound()?;
    let mut folded = case.folded(&function)?;
    let (before, none) = (evaluate(&folded, &all())?, evaluate(&empty(&function)?, &[0])?);
    folded.forget(&[1, 3]).map_err(|error| Stop::from(error).during("forget"))?;
    folded.forget(&[1, 77_777]).map_err(|error| Stop::from(error).during("forget of a group that it does not know"))?;
    same("of a group that was forgotten", &none, &evaluate(&folded, &[1])?)?;
    same("of groups that were not forgotten", &[before[0].clone(), before[2].clone()], &evaluate(&folded, &[0, 2])?)?;
    // The number comes again for another group.
    let (arguments, mut fresh) = (case.columns(&function)?, empty(&function)?);
    update(&mut folded, &[3; 8], &cut(&arguments, 0, 8))?;
    update(&mut fresh, &[3; 8], &cut(&arguments, 0, 8))?;
    same("of a group with a number that was forgotten", &evaluate(&fresh, &[3])?, &evaluate(&folded, &[3])?)?;
    Ok("2 of 5 groups were forgotten, the others are as they were, and a number came again".to_owned())
}

fn retract(case: &AggregateCase) -> Outcome {
    let function = case.bound()?;
    let (mut folded, arguments) = (empty(&function)?, case.columns(&function)?);
    update(&mut folded, &numbers(0, 40), &cut(&arguments, 0, 40))?;
    let before = evaluate(&folded, &all())?;
    update(&mut folded, &numbers(40, 20), &cut(&arguments, 40, 20))?;
    match folded.retract(&numbers(40, 20), &cut(&arguments, 40, 20)) {
        Err(error) if crate::check::is_unsupported(&error) => return Err(Stop::skip("the function takes no rows back, and says so")),
        retracted => retracted.map_err(|error| Stop::from(error).during("retract"))?,
    }
    same("after rows were taken back", &before, &evaluate(&folded, &all())?)?;
    Ok("20 of 60 rows were taken back".to_owned())
}

fn nonsense(case: &AggregateCase) -> Outcome {
    let function = case.bound()?;
    let mut random = case.settings.random();
    let state = function.state().clone();
    let types = || state.fields().iter().map(|field| field.data_type());
    let mut folded = empty(&function)?;
    refused_or_taken("merge of states of nulls", folded.merge(&[0, 1], &null_columns(types(), 2)))?;
    let mut folded = empty(&function)?;
    if refused_or_taken("merge of states that were made up", folded.merge(&[0, 1, 2, 3, 4], &columns(types(), 5, &mut random)?))?.is_some()
    {
        refused_or_taken("evaluate of states that were made up", folded.evaluate(&all()))?;
    }
    Ok("states of nulls and states that were made up: errors or nothing, no panic".to_owned())
}

fn release(case: &AggregateCase) -> Outcome {
    let function = case.bound()?;
    let named = case.columns(&function)?.into_iter().enumerate().map(|(at, column)| (format!("argument{at}"), column));
    let held = RecordBatch::try_from_iter(named).map_err(|_| Stop::skip("the function has no arguments"))?;
    let before = crate::rows::references(&held);
    let mut folded = empty(&function)?;
    for _ in 0..10 {
        update(&mut folded, &numbers(0, ROWS), held.columns())?;
    }
    drop(folded);
    match crate::rows::references(&held).saturating_sub(before) {
        0 => Ok("10 batches, and all that was lent came back with the accumulator".to_owned()),
        left => Err(Stop::fail(format!("{left} buffers of 10 batches were not released when the accumulator was destroyed"))),
    }
}

fn leaks(case: &AggregateCase) -> Outcome {
    let function = case.bound()?;
    let arguments = case.columns(&function)?;
    let groups = numbers(0, ROWS);
    let mut folded = empty(&function)?;
    grows(case.settings.endurance, || {
        for _ in 0..8 {
            update(&mut folded, &groups, &arguments)?;
        }
        evaluate(&folded, &all())?;
        let states = state(&folded, &all())?;
        folded.forget(&all()).map_err(|error| Stop::from(error).during("forget"))?;
        // Windows come and go, each with an accumulator.
        let mut other = empty(&function)?;
        merged(&mut other, &all(), &states)?;
        Ok(8)
    })
}
