//! A warm-up plan on the command line.

use serde_json::{Value, json};

/// `50,100,200`, `START:FACTOR:TARGET` or `inherit`, as the control socket takes it; the server checks what it says.
///
/// # Errors
/// It is none of the three.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let form =
        || "a plan is 50,100,200 (a cap for each day), 50:1.2:50000 (start, factor, target) or inherit".to_owned();
    if text == "inherit" {
        return Ok(text.into());
    }
    let whole = |part: &str| part.trim().parse::<i64>().map_err(|_| form());
    match text.split(':').collect::<Vec<_>>()[..] {
        [caps] => caps.split(',').map(whole).collect::<Result<Vec<_>, _>>().map(Into::into),
        [start, factor, target] => {
            let factor: f64 = factor.trim().parse().map_err(|_| form())?;
            Ok(json!({ "start": whole(start)?, "factor": factor, "target": whole(target)? }))
        }
        _ => Err(form()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_written_in_three_ways() {
        assert_eq!(parse("50, 100"), Ok(json!([50, 100])));
        assert_eq!(parse("50:1.2:500"), Ok(json!({ "start": 50, "factor": 1.2, "target": 500 })));
        assert_eq!(parse("inherit"), Ok(json!("inherit")));
        for wrong in ["", "a", "50:2", "50:x:9", "1,,2"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
