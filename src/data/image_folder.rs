//! From an image identifier to the path of its file.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::str::FromStr;

use super::image::{self, RgbImage};
use super::{Id, ImageSource};
use crate::error::{Error, Result};

/// Image files whose names follow from their identifiers, or are listed one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFolder {
    /// Folders that can hold them, the first choice first; never none.
    roots: Vec<PathBuf>,
    names: Names,
}

/// What the file of each image is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Names {
    /// All after one pattern.
    Pattern(ImageName),
    /// Each by its own path below a folder.
    Listed(HashMap<Id, Box<str>>),
}

impl ImageFolder {
    /// The images below `root`, named as `name` says.
    pub fn new(root: impl Into<PathBuf>, name: ImageName) -> Self {
        Self { roots: vec![root.into()], names: Names::Pattern(name) }
    }

    /// Images that are each below one of several folders, in the first that has them.
    pub(super) fn among(roots: Vec<PathBuf>, names: Names) -> Self {
        let roots = if roots.is_empty() { vec![PathBuf::new()] } else { roots };
        Self { roots, names }
    }

    /// The path of an image. With a single folder, whether the file exists is not checked.
    ///
    /// # Errors
    /// No file name is known, or the identifier would lead out of the folder; with several folders also if none of them
    /// has the file.
    pub fn path(&self, image_id: &Id) -> Result<PathBuf> {
        let name = self.name(image_id)?;
        if let [root] = &*self.roots {
            return Ok(root.join(name));
        }
        let mut paths = self.roots.iter().map(|root| root.join(&name));
        paths.find(|path| path.is_file()).ok_or_else(|| {
            let roots: Vec<String> = self.roots.iter().map(|root| format!("`{}`", root.display())).collect();
            Error::input(format!("cannot find the image `{name}`, neither in {}", roots.join(" nor in "))).hint(
                "put the folder of the images into one of these; `digrap-bench list datasets` tells what is missing",
            )
        })
    }

    /// The path of an image below its folder.
    fn name(&self, image_id: &Id) -> Result<String> {
        let name = match &self.names {
            Names::Pattern(pattern) if !pattern.parts.is_empty() => Some(pattern.of(image_id)),
            Names::Pattern(_) => None,
            Names::Listed(names) => names.get(image_id).map(|name| name.to_string()),
        };
        let name = name.ok_or_else(|| {
            Error::input(format!("no file name is known for image `{image_id}`"))
                .hint("give a template, e.g. `--image-name COCO_val2014_{image_id:012}.jpg`")
        })?;
        if stays_inside(&name) {
            return Ok(name);
        }
        let root = self.roots[0].display();
        Err(Error::input(format!("image `{image_id}` would be read from outside `{root}` (as `{name}`)"))
            .hint("an identifier names a file below the folder of the images"))
    }
}

impl ImageSource for ImageFolder {
    fn check(&self, image_id: &Id) -> Result<()> {
        self.name(image_id).map(drop)
    }

    fn identity(&self, image_id: &Id) -> Result<Vec<u8>> {
        image::file_identity(&self.path(image_id)?)
    }

    fn decode(&self, image_id: &Id) -> Result<RgbImage> {
        image::decode(&self.path(image_id)?)
    }
}

/// How a file name is made of an `image_id`: a template in the style of Python's `str.format`, such as
/// `COCO_val2014_{image_id:012}.jpg` or `{image_id}.png`.
///
/// A width pads integers with zeros; textual identifiers are inserted as they are. `{{` and `}}` are literal braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageName {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    ImageId { width: usize },
}

impl ImageName {
    /// No pattern; every path is an error that asks for one.
    pub fn unknown() -> Self {
        Self { parts: Vec::new() }
    }

    /// The names of COCO images, `COCO_{data_subtype}_{image_id:012}.jpg`, as in `COCO_val2014_000000000042.jpg`.
    pub fn coco(data_subtype: &str) -> Self {
        let literals = [format!("COCO_{data_subtype}_"), ".jpg".to_owned()];
        let [before, after] = literals.map(Part::Literal);
        Self { parts: vec![before, Part::ImageId { width: 12 }, after] }
    }

    /// The file name of an image.
    pub(super) fn of(&self, image_id: &Id) -> String {
        let mut name = String::new();
        for part in &self.parts {
            // Writing to a string does not fail.
            let _ = match (part, image_id) {
                (Part::Literal(text), _) => name.write_str(text),
                (Part::ImageId { width }, Id::Number(number)) => write!(name, "{number:0width$}"),
                (Part::ImageId { .. }, Id::Text(text)) => name.write_str(text),
            };
        }
        name
    }
}

impl FromStr for ImageName {
    type Err = Error;

    fn from_str(template: &str) -> Result<Self> {
        let wrong = |why: String| {
            Error::input(format!("image name template `{template}`: {why}"))
                .hint("write e.g. `COCO_val2014_{image_id:012}.jpg` or `{image_id}.png`")
        };
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = template;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let from_brace = &rest[at..];
            if from_brace.starts_with("{{") || from_brace.starts_with("}}") {
                literal.push_str(&from_brace[..1]);
                rest = &from_brace[2..];
                continue;
            }
            let field = from_brace.strip_prefix('{').ok_or_else(|| wrong("`}` without `{`".to_owned()))?;
            let (field, after) = field.split_once('}').ok_or_else(|| wrong("`{` without `}`".to_owned()))?;
            parts.push(Part::Literal(std::mem::take(&mut literal)));
            parts.push(Part::ImageId { width: width(field).map_err(wrong)? });
            rest = after;
        }
        literal.push_str(rest);
        parts.push(Part::Literal(literal));
        if !parts.iter().any(|part| matches!(part, Part::ImageId { .. })) {
            return Err(wrong("it does not hold `{image_id}`, so that all images would share one file".to_owned()));
        }
        Ok(Self { parts })
    }
}

/// The minimum width that a replacement field asks for; 0 for none.
fn width(field: &str) -> Result<usize, String> {
    const WIDEST: usize = 64;
    let (name, format) = field.split_once(':').unwrap_or((field, ""));
    if name != "image_id" {
        return Err(format!("`{{{name}}}` is not known, only `{{image_id}}`"));
    }
    let format = format.strip_suffix('d').unwrap_or(format);
    if format.is_empty() {
        return Ok(0);
    }
    let digits = format.strip_prefix('0').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let width = digits.and_then(|digits| digits.parse().ok()).filter(|&width| (1..=WIDEST).contains(&width));
    width.ok_or_else(|| format!("the format `:{format}` is not `:0` and a width up to {WIDEST}"))
}

/// Whether a relative path names something below its start on any system, whatever the separators.
fn stays_inside(name: &str) -> bool {
    let drive = name.as_bytes().get(1) == Some(&b':');
    let mut segments = name.split(['/', '\\']);
    !drive && !name.contains('\0') && segments.all(|segment| !segment.is_empty() && segment != "." && segment != "..")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn path(template: &str, id: Id) -> Result<String> {
        let folder = ImageFolder::new("images", template.parse()?);
        folder.path(&id).map(|path| path.display().to_string())
    }

    fn text(id: &str) -> Id {
        Id::Text(id.into())
    }

    #[test]
    fn templates_are_filled_as_in_python() {
        let rows = [
            ("COCO_val2014_{image_id:012}.jpg", Id::Number(42), "images/COCO_val2014_000000000042.jpg"),
            ("{image_id:06d}.png", Id::Number(-5), "images/-00005.png"),
            ("{image_id:03}.png", Id::Number(12345), "images/12345.png"),
            ("val/{image_id}.png", text("a/b"), "images/val/a/b.png"),
            ("{{x}}_{image_id:012}", text("42"), "images/{x}_42"),
            ("{image_id}_{image_id:02}", Id::Number(3), "images/3_03"),
        ];
        for (template, id, expected) in rows {
            assert_eq!(path(template, id).unwrap(), expected);
        }
        let coco = ImageFolder::new("v", ImageName::coco("val2014")).path(&text("000000000042_7")).unwrap();
        assert_eq!(coco, Path::new("v/COCO_val2014_000000000042_7.jpg"));
    }

    #[test]
    fn bad_templates_say_what_is_wrong() {
        let rows = [
            ("photo.jpg", "it does not hold `{image_id}`, so that all images would share one file"),
            ("{image_id.jpg", "`{` without `}`"),
            ("image_id}.jpg", "`}` without `{`"),
            ("{id}.jpg", "`{id}` is not known, only `{image_id}`"),
            ("{image_id:>12}.jpg", "the format `:>12` is not `:0` and a width up to 64"),
            ("{image_id:099}.jpg", "the format `:099` is not `:0` and a width up to 64"),
        ];
        for (template, why) in rows {
            let error = template.parse::<ImageName>().unwrap_err();
            assert_eq!(error.to_string(), format!("image name template `{template}`: {why}"));
        }
    }

    #[test]
    fn identifiers_cannot_leave_the_folder() {
        for id in ["../secret", "a/../../b", "/etc/passwd", "..\\x", "a//b", "c:x", "", "a\0b", "./a/.."] {
            let error = path("{image_id}", text(id)).unwrap_err();
            assert!(error.to_string().contains("from outside `images`"), "{id:?}: {error}");
        }
    }

    #[test]
    fn an_unknown_name_asks_for_a_template() {
        let error = ImageFolder::new("images", ImageName::unknown()).path(&Id::Number(1)).unwrap_err();
        assert_eq!(error.to_string(), "no file name is known for image `1`");
        assert!(error.next_step().unwrap().contains("--image-name"));
    }
}
