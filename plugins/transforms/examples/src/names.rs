//! `names`: a scalar function that gives what a number or a text stands for, by a table in its configuration.

use arrow_array::{ArrayRef, StringArray, cast::AsArray, types::Int64Type};
use arrow_schema::{DataType, FieldRef};
use schemars::JsonSchema;
use serde::Deserialize;
use standpipe_sdk::{
    Error, Result,
    function::{Bound, ScalarFunction},
};
use std::{collections::HashMap, sync::Arc};

/// The name of a key: `team_name(teamId)`, where `functions:` has `team_name: {function: names, with: {names: {1: Red}}}`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NamesConfig {
    /// Names by key. Keys are whole numbers if the argument is one.
    pub names: HashMap<String, String>,
    /// What any other key is called. Default: null.
    pub otherwise: Option<String>,
}

/// See the module's documentation.
pub struct Names {
    keys: Keys,
    otherwise: Option<String>,
}

enum Keys {
    Numbers(HashMap<i64, String>),
    Texts(HashMap<String, String>),
}

impl ScalarFunction for Names {
    const NAME: &'static str = "names";
    type Config = NamesConfig;

    fn bind(config: NamesConfig, arguments: &[FieldRef]) -> Result<Bound<Self>> {
        let NamesConfig { names, otherwise } = config;
        let [key] = arguments else {
            return Err(Error::config("", format!("takes 1 argument, the key, not {}", arguments.len())));
        };
        let (keys, wanted) = match key.data_type() {
            data_type if data_type.is_integer() => (Keys::Numbers(numbers(names)?), DataType::Int64),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => (Keys::Texts(names), DataType::Utf8),
            other => return Err(Error::config("", format!("takes a whole number or a text, not {other}"))),
        };
        Ok(Bound::new(Self { keys, otherwise }, [wanted], DataType::Utf8))
    }

    fn invoke(&self, arguments: &[ArrayRef], _: usize) -> Result<ArrayRef> {
        let otherwise = self.otherwise.as_ref();
        // A key that is null has no name.
        let names: StringArray = match &self.keys {
            Keys::Numbers(names) => {
                arguments[0].as_primitive::<Int64Type>().iter().map(|key| key.and_then(|key| names.get(&key).or(otherwise))).collect()
            }
            Keys::Texts(names) => {
                arguments[0].as_string::<i32>().iter().map(|key| key.and_then(|key| names.get(key).or(otherwise))).collect()
            }
        };
        Ok(Arc::new(names))
    }
}

fn numbers(names: HashMap<String, String>) -> Result<HashMap<i64, String>> {
    let number = |(key, name): (String, String)| match key.parse() {
        Ok(number) => Ok((number, name)),
        Err(_) => Err(Error::config(format!("names.{key}"), "the argument is a whole number, this is none")),
    };
    names.into_iter().map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::Int64Array;
    use serde_json::json;
    use standpipe_sdk::testing::Harness;

    #[test]
    fn keys_have_names() {
        let config = json!({"names": {"1": "Red", "2": "Green"}, "otherwise": "other"});
        let names = Harness::scalar::<Names>(&config, &[DataType::Int32]).unwrap();
        assert_eq!(names.arguments().collect::<Vec<_>>(), [&DataType::Int64]);
        let keys: ArrayRef = Arc::new(Int64Array::from(vec![Some(2), None, Some(7)]));
        let found = names.invoke(&[keys], 3).unwrap();
        assert_eq!(found.as_string::<i32>(), &StringArray::from(vec![Some("Green"), None, Some("other")]));
        let names = Harness::scalar::<Names>(&json!({"names": {"a": "Alpha"}}), &[DataType::Utf8]).unwrap();
        let found = names.invoke(&[Arc::new(StringArray::from(vec!["a", "b"]))], 2).unwrap();
        assert_eq!(found.as_string::<i32>(), &StringArray::from(vec![Some("Alpha"), None]));
    }

    #[test]
    fn what_cannot_be_a_key_is_refused() {
        let refused = |config, types: &[DataType]| Harness::scalar::<Names>(&config, types).unwrap_err().to_string();
        let config = || json!({"names": {"a": "Alpha"}});
        assert_eq!(refused(config(), &[DataType::Float64]), "names: takes a whole number or a text, not Float64");
        assert_eq!(refused(config(), &[]), "names: takes 1 argument, the key, not 0");
        assert_eq!(refused(config(), &[DataType::Int64]), "names: names.a: the argument is a whole number, this is none");
        assert_eq!(refused(json!({"nams": {}}), &[DataType::Int64]), "names: nams: is not known, did you mean \"names\"?");
    }
}
