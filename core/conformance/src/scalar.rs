//! Scalar functions: they are pure, and what they give is what they said they would.

use crate::{
    check::{Check, Outcome, Stop},
    functions::{self, arguments, columns, cut, fields, honest, null_columns, texts},
    process::grows,
    rows::difference,
    suite::{Case, Settings, Unusable},
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::DataType;
use standpipe_sdk::{
    Volatility,
    hosting::{ScalarFunction, ScalarKind},
};
use std::{sync::Arc, thread};

/// The checks of a scalar function, in their order.
pub(crate) const CHECKS: &[Check<ScalarCase>] = &[
    Check { name: "configuration", about: "what is no configuration is refused, with a line and not with a panic", run: configuration },
    Check { name: "bind", about: "the same question has the same answer", run: bind },
    Check { name: "arguments", about: "arguments that it does not take are refused, with a line and not with a panic", run: odd_arguments },
    Check { name: "result", about: "the result has the type, the rows and the nullability that were bound", run: result },
    Check { name: "immutable", about: "the same arguments give the same result (`immutable`)", run: immutable },
    Check { name: "rows", about: "a row's result depends on that row alone (`immutable`)", run: rows },
    Check { name: "concurrent", about: "it can be called on several threads at once", run: concurrent },
    Check { name: "release", about: "every array of the host is released", run: release },
    Check { name: crate::LEAKS, about: "memory does not grow with the calls", run: leaks },
];

const ROWS: usize = 100;

/// A scalar function and what it is tried with.
pub(crate) struct ScalarCase {
    kind: ScalarKind,
    settings: Settings,
    types: Vec<DataType>,
}

impl Case for ScalarCase {
    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn declares(&self) -> Vec<String> {
        self.bound().map(|function| vec![format!("{:?}", function.volatility()).to_lowercase()]).unwrap_or_default()
    }
}

pub(crate) fn case(kind: ScalarKind, settings: Settings) -> Result<ScalarCase, Unusable> {
    let (types, _) = arguments(&settings, |fields| kind.bind(&settings.config, fields))?;
    Ok(ScalarCase { kind, settings, types })
}

impl ScalarCase {
    fn bound(&self) -> Result<ScalarFunction, Stop> {
        self.kind.bind(&self.settings.config, &fields(&self.types)).map_err(|error| Stop::from(error).during("bind"))
    }

    fn columns(&self, function: &ScalarFunction) -> Result<Vec<ArrayRef>, Stop> {
        columns(function.arguments(), ROWS, &mut self.settings.random())
    }

    fn is_immutable(function: &ScalarFunction) -> Result<(), Stop> {
        match function.volatility() {
            Volatility::Immutable => Ok(()),
            other => Err(Stop::skip(format!("the function is {}", format!("{other:?}").to_lowercase()))),
        }
    }
}

fn invoke(function: &ScalarFunction, arguments: &[ArrayRef], rows: usize) -> Result<ArrayRef, Stop> {
    function.invoke(arguments, rows).map_err(|error| Stop::from(error).during("invoke"))
}

fn configuration(case: &ScalarCase) -> Outcome {
    functions::configuration(&case.settings, case.kind.config_schema(), &case.types, |config, given| case.kind.bind(config, given))
}

fn odd_arguments(case: &ScalarCase) -> Outcome {
    functions::odd_arguments(&case.settings, |config, given| case.kind.bind(config, given))
}

fn bind(case: &ScalarCase) -> Outcome {
    let said = |function: &ScalarFunction| {
        (
            function.arguments().cloned().collect::<Vec<_>>(),
            function.result().data_type().clone(),
            function.result().is_nullable(),
            function.volatility(),
        )
    };
    let first = said(&case.bound()?);
    for _ in 0..3 {
        let again = said(&case.bound()?);
        if again != first {
            return Err(Stop::fail(format!("binds the same call to something else: {again:?} instead of {first:?}")));
        }
    }
    // With what it wanted: it is asked so after the host has cast.
    let wanted = case
        .kind
        .bind(&case.settings.config, &fields(&first.0))
        .map_err(|error| Stop::from(error).during("bind to the types that it wanted"))?;
    if said(&wanted) != first {
        return Err(Stop::fail(format!("bound to the types that it wanted it says {:?} instead of {first:?}", said(&wanted))));
    }
    let shown = case.types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    Ok(format!("({shown}) gives {}, five times", first.1))
}

fn result(case: &ScalarCase) -> Outcome {
    let function = case.bound()?;
    let full = case.columns(&function)?;
    let tries = [
        ("the result", full.clone(), ROWS),
        ("the result of no rows", cut(&full, 0, 0), 0),
        ("the result of rows that are cut out", cut(&full, 17, 30), 30),
        ("the result of nulls", null_columns(function.arguments(), 9), 9),
    ];
    for (what, arguments, rows) in &tries {
        let column = invoke(&function, arguments, *rows).map_err(|stop| stop.during(what))?;
        honest(what, function.result(), &column)?;
    }
    Ok(format!("{} of {ROWS} rows, of none, of nulls, of rows that are cut out", function.result().data_type()))
}

fn immutable(case: &ScalarCase) -> Outcome {
    let function = case.bound()?;
    ScalarCase::is_immutable(&function)?;
    let arguments = case.columns(&function)?;
    let first = texts(&invoke(&function, &arguments, ROWS)?)?;
    let again = texts(&invoke(&function, &arguments, ROWS)?)?;
    let other = case.bound()?;
    let bound_again = texts(&invoke(&other, &arguments, ROWS)?)?;
    for (what, found) in [("called again", again), ("bound again", bound_again)] {
        if let Some(difference) = difference(&first, &found) {
            return Err(Stop::fail(format!("is immutable, and gives something else when it is {what}: {difference}")));
        }
    }
    Ok(format!("{ROWS} rows, the same when called again and when bound again"))
}

fn rows(case: &ScalarCase) -> Outcome {
    let function = case.bound()?;
    ScalarCase::is_immutable(&function)?;
    let arguments = case.columns(&function)?;
    let whole = texts(&invoke(&function, &arguments, ROWS)?)?;
    let mut single = Vec::with_capacity(ROWS);
    for row in 0..ROWS {
        single.extend(texts(&invoke(&function, &cut(&arguments, row, 1), 1)?)?);
    }
    match difference(&whole, &single) {
        Some(difference) => Err(Stop::fail(format!("gives something else for a row alone: {difference}"))),
        None => Ok(format!("{ROWS} rows, all at once and one by one")),
    }
}

fn concurrent(case: &ScalarCase) -> Outcome {
    let function = case.bound()?;
    let arguments = case.columns(&function)?;
    let is_immutable = ScalarCase::is_immutable(&function).is_ok();
    let expected = texts(&invoke(&function, &arguments, ROWS)?)?;
    let (function, arguments, expected) = (&function, &arguments, &expected);
    let call = || -> Result<(), Stop> {
        for _ in 0..50 {
            let found = texts(&invoke(function, arguments, ROWS)?)?;
            if let Some(difference) = difference(expected, &found).filter(|_| is_immutable) {
                return Err(Stop::fail(format!("gives something else on several threads: {difference}")));
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(call)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(Stop::fail("what it gave made the host panic"))))
    })?;
    Ok("200 calls on 4 threads at once".to_owned())
}

fn release(case: &ScalarCase) -> Outcome {
    let function = case.bound()?;
    let named = case.columns(&function)?.into_iter().enumerate().map(|(at, column)| (format!("argument{at}"), column));
    let held = RecordBatch::try_from_iter(named).map_err(|_| Stop::skip("the function has no arguments"))?;
    let before = crate::rows::references(&held);
    for _ in 0..10 {
        invoke(&function, held.columns(), ROWS)?;
    }
    drop(function);
    match crate::rows::references(&held).saturating_sub(before) {
        0 => Ok("10 calls, and all that was lent came back".to_owned()),
        left => Err(Stop::fail(format!("{left} buffers of 10 calls were not released when the function was let go"))),
    }
}

fn leaks(case: &ScalarCase) -> Outcome {
    let function = Arc::new(case.bound()?);
    let arguments = case.columns(&function)?;
    grows(case.settings.endurance, || {
        for _ in 0..8 {
            let result = invoke(&function, &arguments, ROWS)?;
            if result.len() != ROWS {
                return Err(Stop::fail(format!("gives {} rows instead of {ROWS}", result.len())));
            }
        }
        // Binding must not leak either.
        drop(case.bound()?);
        Ok(8)
    })
}
