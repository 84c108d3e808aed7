//! A page for every diagnostic code: what it means, a recipe that draws it, and the same recipe mended.
//!
//! A page is a text in `grammar/pages/`: a line `# CODE: TITLE`, paragraphs, and two fenced recipes. A comment
//! `# --set NAME=VALUE` at the head of a recipe stands for that option. The recipes are tested with the checker.

/// What is said about a code.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    pub id: &'static str,
    source: &'static str,
}

/// In the order of [`crate::codes::CODES`]. To add a page, write its file and add its line here.
pub const PAGES: &[Page] = &[
    page("E0101", include_str!("../pages/E0101.md")),
    page("E0102", include_str!("../pages/E0102.md")),
    page("E0103", include_str!("../pages/E0103.md")),
    page("E0104", include_str!("../pages/E0104.md")),
    page("E0105", include_str!("../pages/E0105.md")),
    page("E0106", include_str!("../pages/E0106.md")),
    page("E0107", include_str!("../pages/E0107.md")),
    page("E0108", include_str!("../pages/E0108.md")),
    page("E0109", include_str!("../pages/E0109.md")),
    page("E0201", include_str!("../pages/E0201.md")),
    page("E0202", include_str!("../pages/E0202.md")),
    page("E0203", include_str!("../pages/E0203.md")),
    page("E0204", include_str!("../pages/E0204.md")),
    page("E0205", include_str!("../pages/E0205.md")),
    page("E0206", include_str!("../pages/E0206.md")),
    page("E0207", include_str!("../pages/E0207.md")),
    page("E0208", include_str!("../pages/E0208.md")),
    page("E0209", include_str!("../pages/E0209.md")),
    page("E0210", include_str!("../pages/E0210.md")),
    page("E0211", include_str!("../pages/E0211.md")),
    page("E0212", include_str!("../pages/E0212.md")),
    page("E0301", include_str!("../pages/E0301.md")),
    page("E0302", include_str!("../pages/E0302.md")),
    page("E0303", include_str!("../pages/E0303.md")),
    page("E0304", include_str!("../pages/E0304.md")),
    page("E0305", include_str!("../pages/E0305.md")),
    page("E0306", include_str!("../pages/E0306.md")),
    page("E0307", include_str!("../pages/E0307.md")),
    page("E0308", include_str!("../pages/E0308.md")),
    page("E0401", include_str!("../pages/E0401.md")),
    page("E0402", include_str!("../pages/E0402.md")),
    page("E0403", include_str!("../pages/E0403.md")),
    page("E0404", include_str!("../pages/E0404.md")),
    page("E0405", include_str!("../pages/E0405.md")),
    page("E0406", include_str!("../pages/E0406.md")),
    page("E0407", include_str!("../pages/E0407.md")),
    page("E0408", include_str!("../pages/E0408.md")),
    page("E0409", include_str!("../pages/E0409.md")),
    page("E0410", include_str!("../pages/E0410.md")),
    page("E0411", include_str!("../pages/E0411.md")),
    page("E0412", include_str!("../pages/E0412.md")),
    page("E0413", include_str!("../pages/E0413.md")),
    page("E0414", include_str!("../pages/E0414.md")),
    page("E0415", include_str!("../pages/E0415.md")),
    page("E0416", include_str!("../pages/E0416.md")),
    page("E0417", include_str!("../pages/E0417.md")),
    page("E0418", include_str!("../pages/E0418.md")),
    page("E0501", include_str!("../pages/E0501.md")),
    page("E0502", include_str!("../pages/E0502.md")),
    page("E0503", include_str!("../pages/E0503.md")),
    page("E0504", include_str!("../pages/E0504.md")),
    page("E0505", include_str!("../pages/E0505.md")),
    page("E0601", include_str!("../pages/E0601.md")),
    page("E0602", include_str!("../pages/E0602.md")),
    page("E0603", include_str!("../pages/E0603.md")),
    page("E0604", include_str!("../pages/E0604.md")),
    page("E0605", include_str!("../pages/E0605.md")),
    page("E0606", include_str!("../pages/E0606.md")),
    page("E0607", include_str!("../pages/E0607.md")),
    page("E0608", include_str!("../pages/E0608.md")),
    page("E0609", include_str!("../pages/E0609.md")),
    page("E0610", include_str!("../pages/E0610.md")),
    page("E0611", include_str!("../pages/E0611.md")),
    page("E0701", include_str!("../pages/E0701.md")),
    page("E0702", include_str!("../pages/E0702.md")),
    page("E0703", include_str!("../pages/E0703.md")),
    page("E0704", include_str!("../pages/E0704.md")),
    page("E0705", include_str!("../pages/E0705.md")),
    page("E0706", include_str!("../pages/E0706.md")),
    page("E0707", include_str!("../pages/E0707.md")),
    page("E0708", include_str!("../pages/E0708.md")),
    page("E0801", include_str!("../pages/E0801.md")),
    page("E0802", include_str!("../pages/E0802.md")),
    page("E0803", include_str!("../pages/E0803.md")),
    page("E0804", include_str!("../pages/E0804.md")),
    page("E0901", include_str!("../pages/E0901.md")),
    page("E0902", include_str!("../pages/E0902.md")),
    page("E0903", include_str!("../pages/E0903.md")),
    page("E0904", include_str!("../pages/E0904.md")),
    page("E0905", include_str!("../pages/E0905.md")),
    page("E0906", include_str!("../pages/E0906.md")),
    page("E0907", include_str!("../pages/E0907.md")),
    page("E0908", include_str!("../pages/E0908.md")),
    page("E1001", include_str!("../pages/E1001.md")),
    page("E1002", include_str!("../pages/E1002.md")),
    page("E1003", include_str!("../pages/E1003.md")),
    page("E1004", include_str!("../pages/E1004.md")),
    page("E1005", include_str!("../pages/E1005.md")),
    page("E1006", include_str!("../pages/E1006.md")),
    page("E1007", include_str!("../pages/E1007.md")),
    page("E1008", include_str!("../pages/E1008.md")),
    page("E1009", include_str!("../pages/E1009.md")),
    page("W0201", include_str!("../pages/W0201.md")),
    page("W0202", include_str!("../pages/W0202.md")),
    page("W0203", include_str!("../pages/W0203.md")),
    page("W0204", include_str!("../pages/W0204.md")),
    page("W0205", include_str!("../pages/W0205.md")),
    page("W0401", include_str!("../pages/W0401.md")),
    page("W0402", include_str!("../pages/W0402.md")),
    page("W0403", include_str!("../pages/W0403.md")),
    page("W0404", include_str!("../pages/W0404.md")),
    page("W0405", include_str!("../pages/W0405.md")),
    page("W0406", include_str!("../pages/W0406.md")),
    page("W0601", include_str!("../pages/W0601.md")),
    page("W0602", include_str!("../pages/W0602.md")),
    page("W0701", include_str!("../pages/W0701.md")),
    page("W0702", include_str!("../pages/W0702.md")),
    page("W0703", include_str!("../pages/W0703.md")),
    page("W0704", include_str!("../pages/W0704.md")),
    page("W0801", include_str!("../pages/W0801.md")),
    page("W0901", include_str!("../pages/W0901.md")),
    page("W0902", include_str!("../pages/W0902.md")),
    page("W1001", include_str!("../pages/W1001.md")),
];

const fn page(id: &'static str, source: &'static str) -> Page {
    Page { id, source }
}

pub fn find(id: &str) -> Option<&'static Page> {
    PAGES.iter().find(|page| page.id == id)
}

const FENCE: &str = "```mrecipe\n";

impl Page {
    /// The title of the code.
    pub fn title(&self) -> &'static str {
        let line = self.source.lines().next().unwrap_or_default();
        line.split_once(": ").map_or(line, |(_, title)| title)
    }

    /// The paragraphs, with a blank line between two.
    pub fn text(&self) -> &'static str {
        let prose = self.source.split(FENCE).next().unwrap_or_default();
        let body = prose.split_once("\n\n").map_or("", |(_, body)| body);
        // The last paragraph introduces the first recipe.
        body.trim_end().rsplit_once("\n\n").map_or("", |(text, _)| text)
    }

    /// A recipe that draws the code.
    pub fn failing(&self) -> &'static str {
        self.recipe(1)
    }

    /// The same recipe without the fault.
    pub fn mended(&self) -> &'static str {
        self.recipe(2)
    }

    fn recipe(&self, number: usize) -> &'static str {
        self.source.split(FENCE).nth(number).and_then(|rest| rest.split("```").next()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes::CODES;
    use crate::{format, parse};

    #[test]
    fn every_code_has_a_page_and_every_page_its_parts() {
        let ids = |of: &mut dyn Iterator<Item = &'static str>| of.collect::<Vec<_>>();
        let wanted = ids(&mut CODES.iter().map(|c| c.id));
        assert_eq!(ids(&mut PAGES.iter().map(|p| p.id)), wanted, "a code without a page, or out of order");
        for (page, code) in PAGES.iter().zip(CODES) {
            assert_eq!(page.title(), code.title, "{}", page.id);
            assert!(page.source.starts_with(&format!("# {}: ", page.id)), "{}", page.id);
            assert!(page.source.contains(&format!("\nThis draws {}:\n", page.id)), "{}", page.id);
            assert!(page.text().len() > 80 && !page.text().contains("```"), "{} says little", page.id);
            assert!(page.failing() != page.mended() && page.source.ends_with("```\n"), "{}", page.id);
            assert!(page.text().lines().all(|l| l.chars().count() <= 100), "{} has long lines", page.id);
        }
    }

    #[test]
    fn recipes_of_the_pages_are_laid_out() {
        for page in PAGES {
            assert_eq!(format::format(page.mended()).ok().as_deref(), Some(page.mended()), "{}", page.id);
            if parse(page.failing()).1.is_empty() {
                let laid = format::format(page.failing()).ok();
                assert_eq!(laid.as_deref(), Some(page.failing()), "{}", page.id);
            }
        }
    }
}
