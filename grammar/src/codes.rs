//! Every diagnostic code: stable, one line each. Severity is the first letter.

/// A code and what it stands for.
#[derive(Clone, Copy, Debug)]
pub struct Code {
    pub id: &'static str,
    pub title: &'static str,
}

/// Sorted by id. To add a diagnostic, add its line here and raise it where the fault is seen.
pub const CODES: &[Code] = &[
    Code { id: "E0101", title: "the header `mrecipe 1` is missing or of another version" },
    Code { id: "E0102", title: "a statement cannot be read" },
    Code { id: "E0103", title: "a bracket is not closed, or closes nothing" },
    Code { id: "E0104", title: "a statement begins with an unknown word" },
    Code { id: "E0105", title: "a string is not closed, or holds an unknown escape" },
    Code { id: "E0106", title: "a number cannot be read" },
    Code { id: "E0107", title: "comparisons are chained" },
    Code { id: "E0108", title: "a clause is given twice, out of order, or is missing" },
    Code { id: "E0109", title: "a value is nested too deep or too long" },
    Code { id: "E0201", title: "a name is declared twice" },
    Code { id: "E0202", title: "a name that nothing is declared by" },
    Code { id: "E0203", title: "a name of another kind than the place wants" },
    Code { id: "E0204", title: "declarations that depend on themselves" },
    Code { id: "E0205", title: "an unknown setting" },
    Code { id: "E0206", title: "a setting is missing" },
    Code { id: "E0207", title: "a setting is written twice" },
    Code { id: "E0208", title: "`--set` or `use` sets what there is not" },
    Code { id: "E0209", title: "the value of `--set` cannot be read" },
    Code { id: "E0210", title: "a used file cannot be read" },
    Code { id: "E0211", title: "a used file declares what is run" },
    Code { id: "E0212", title: "a file uses itself" },
    Code { id: "E0301", title: "a value of another kind than the place wants" },
    Code { id: "E0302", title: "values whose units cannot be combined" },
    Code { id: "E0303", title: "a count that is not whole" },
    Code { id: "E0304", title: "a value out of its range" },
    Code { id: "E0305", title: "a set or a range that is empty, too long, or repeats a value" },
    Code { id: "E0306", title: "a division by zero, or a number that is too large" },
    Code { id: "E0307", title: "a dimension that there is not" },
    Code { id: "E0308", title: "a function or its arguments are wrong" },
    Code { id: "E0401", title: "the config.json of a checkpoint cannot be used" },
    Code { id: "E0402", title: "an unknown axis" },
    Code { id: "E0403", title: "an axis is cut twice" },
    Code { id: "E0404", title: "an axis that the parent does not have" },
    Code { id: "E0405", title: "a size that the parent cannot be cut to" },
    Code { id: "E0406", title: "a tap that is unknown, or does not score the axis" },
    Code { id: "E0407", title: "an axis is not ranked" },
    Code { id: "E0408", title: "a metric that cannot rank the axis" },
    Code { id: "E0409", title: "a number of heads that breaks a group" },
    Code { id: "E0410", title: "a prune changes nothing" },
    Code { id: "E0411", title: "a model that its family cannot store" },
    Code { id: "E0412", title: "a space stands where one model is wanted" },
    Code { id: "E0413", title: "a repair that is unknown or has nothing to mend" },
    Code { id: "E0414", title: "a prune without an axis" },
    Code { id: "E0415", title: "models with different vocabularies are compared" },
    Code { id: "E0416", title: "a ranking or repair looks at data, and none is named" },
    Code { id: "E0417", title: "something stands twice" },
    Code { id: "E0418", title: "a residual stream that cannot be rotated" },
    Code { id: "E0501", title: "an unknown word in a group" },
    Code { id: "E0502", title: "a rule that no model has" },
    Code { id: "E0503", title: "a size breaks a rule of its group" },
    Code { id: "E0504", title: "rules of a group contradict each other" },
    Code { id: "E0505", title: "a rule that the parent cannot satisfy" },
    Code { id: "E0601", title: "an unknown quantity" },
    Code { id: "E0602", title: "a measured quantity without data, or an analytic one with data" },
    Code { id: "E0603", title: "a later rung keeps more than an earlier one" },
    Code { id: "E0604", title: "a constraint that cannot be read" },
    Code { id: "E0605", title: "no point of the space meets the constraints" },
    Code { id: "E0606", title: "a search without a ranking" },
    Code { id: "E0607", title: "an unknown control" },
    Code { id: "E0608", title: "a space with too many points" },
    Code { id: "E0609", title: "a rung trains longer than its schedule" },
    Code { id: "E0610", title: "a rung trains, and no data is named" },
    Code { id: "E0611", title: "a sum of quantities that cannot be read" },
    Code { id: "E0701", title: "a loss is unknown or malformed" },
    Code { id: "E0702", title: "an unknown optimizer or learning rate" },
    Code { id: "E0703", title: "a schedule makes no update" },
    Code { id: "E0704", title: "evaluations while training without data" },
    Code { id: "E0705", title: "a loss needs a teacher, and there is none" },
    Code { id: "E0706", title: "unknown initial weights" },
    Code { id: "E0707", title: "a loss compares layers that do not fit together" },
    Code { id: "E0708", title: "a loss compares streams that do not fit together" },
    Code { id: "E0801", title: "data names no files" },
    Code { id: "E0802", title: "a mix of data is malformed" },
    Code { id: "E0803", title: "the data has fewer tokens than the schedule wants" },
    Code { id: "E0804", title: "questions stand where text is wanted" },
    Code { id: "E0901", title: "an unknown target" },
    Code { id: "E0902", title: "a target would refuse the model" },
    Code { id: "E0903", title: "two exports write to one folder" },
    Code { id: "E0904", title: "the folder of an export is taken" },
    Code { id: "E0905", title: "an unknown element type" },
    Code { id: "E0906", title: "the folder of an export has no name" },
    Code { id: "E0907", title: "a comparison names one model alone" },
    Code { id: "E0908", title: "accuracy is asked for on data without answers" },
    Code { id: "E1001", title: "a metric reads or calls something that there is not" },
    Code { id: "E1002", title: "a metric's parameters are x, x and w, or w" },
    Code { id: "E1003", title: "a reducer's `over` is missing or wrong" },
    Code { id: "E1004", title: "an axis is reduced before its turn, or twice" },
    Code { id: "E1005", title: "a metric does not give one score per element" },
    Code { id: "E1006", title: "a metric needs a second pass over the data" },
    Code { id: "E1007", title: "values of a metric that cannot be combined" },
    Code { id: "E1008", title: "a function of a metric has the wrong number of values" },
    Code { id: "E1009", title: "something that cannot stand in a metric" },
    Code { id: "W0201", title: "a param is never used" },
    Code { id: "W0202", title: "a declaration is never used" },
    Code { id: "W0203", title: "a group stands under nothing" },
    Code { id: "W0204", title: "a metric is hidden by a built-in ranking" },
    Code { id: "W0205", title: "a file is used twice" },
    Code { id: "W0401", title: "config.json is not at hand" },
    Code { id: "W0402", title: "config.json names two lower limits of dt" },
    Code { id: "W0403", title: "a prune does not look at its calibration data" },
    Code { id: "W0404", title: "a value depends on a config.json that is not at hand" },
    Code { id: "W0405", title: "a model without weights stands where they are wanted" },
    Code { id: "W0406", title: "a repair has little data" },
    Code { id: "W0601", title: "a rung ends within the warm-up of its schedule" },
    Code { id: "W0602", title: "a search in a space of one point" },
    Code { id: "W0701", title: "a schedule makes few updates" },
    Code { id: "W0702", title: "no loss looks at the teacher" },
    Code { id: "W0703", title: "a schedule ends before its learning rate has run its course" },
    Code { id: "W0704", title: "data is trained on and held out" },
    Code { id: "W0801", title: "a pattern of files matches nothing" },
    Code { id: "W0901", title: "a target runs the model slowly, or with care" },
    Code { id: "W0902", title: "a search may choose what a target refuses" },
    Code { id: "W1001", title: "a metric does not read one of its parameters" },
];

#[cfg(test)]
mod tests {
    use super::CODES;

    #[test]
    fn codes_are_sorted_unique_and_well_formed() {
        assert!(CODES.is_sorted_by(|a, b| a.id < b.id), "sort the list of codes");
        for code in CODES {
            let (severity, number) = code.id.split_at(1);
            assert!(matches!(severity, "E" | "W"), "{}", code.id);
            assert!(number.len() == 4 && number.bytes().all(|b| b.is_ascii_digit()), "{}", code.id);
            assert!(!code.title.is_empty() && !code.title.ends_with('.'), "{}", code.id);
        }
    }

    #[test]
    fn every_code_named_in_the_source_is_registered() {
        let parse = [
            include_str!("parse.rs"),
            include_str!("parse/blocks.rs"),
            include_str!("parse/expressions.rs"),
            include_str!("parse/layout.rs"),
            include_str!("parse/lines.rs"),
            include_str!("parse/messages.rs"),
            include_str!("parse/numbers.rs"),
            include_str!("parse/strings.rs"),
        ];
        let mut named = 0;
        for source in parse {
            for (at, _) in source.match_indices("\"E0") {
                let id = &source[at + 1..at + 6];
                assert!(CODES.iter().any(|c| c.id == id), "{id} is raised but not registered");
                named += 1;
            }
        }
        assert!(named > 20, "found only {named}");
    }
}
