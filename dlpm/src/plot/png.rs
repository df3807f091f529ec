//! From SVG to PNG, with a font of our own, so that it looks the same on a machine that has none.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use resvg::{tiny_skia, usvg};

/// Draws an SVG at `scale` dots to a pixel and returns the PNG.
///
/// # Errors
///
/// If the picture is too large.
pub fn from_svg(svg: &str, scale: f32) -> Result<Vec<u8>> {
    let mut options = usvg::Options::default();
    let fonts = options.fontdb_mut();
    fonts.load_font_source(usvg::fontdb::Source::Binary(Arc::new(
        epaint_default_fonts::UBUNTU_LIGHT,
    )));
    let family = fonts
        .faces()
        .next()
        .and_then(|face| face.families.first())
        .map(|(name, _)| name.clone())
        .context("the built-in font cannot be read")?;
    fonts.set_sans_serif_family(family);
    let tree = usvg::Tree::from_str(svg, &options).context("the picture cannot be read")?;
    let size = tree.size().to_int_size().scale_by(scale);
    let size = size.context("the picture has no size")?;
    let mut pixmap = tiny_skia::Pixmap::new(size.width(), size.height())
        .ok_or_else(|| anyhow!("a picture of {}x{} dots is too large", size.width(), size.height()))?;
    resvg::render(
        &tree,
        tiny_skia::Transform::from_scale(scale, scale),
        &mut pixmap.as_mut(),
    );
    pixmap.encode_png().context("the picture cannot be encoded")
}
