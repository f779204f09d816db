//! The only user of the template engine. A missing variable is an error; every value passes a quoting helper.

use handlebars::Context;
use handlebars::Handlebars;
use handlebars::Helper;
use handlebars::HelperResult;
use handlebars::Output;
use handlebars::RenderContext;
use handlebars::RenderErrorReason;
use serde_json::Value;

use crate::render::RenderError;
use crate::render::yaml;

/// Every template of the program by its file name.
const TEMPLATES: &[(&str, &str)] = &[
    ("certificates.service", include_str!("../../templates/certificates.service.hbs")),
    ("certificates.timer", include_str!("../../templates/certificates.timer.hbs")),
    ("config.toml", include_str!("../../templates/config.toml.hbs")),
    ("config.yaml", include_str!("../../templates/config.yaml.hbs")),
    ("containerd.service", include_str!("../../templates/containerd.service.hbs")),
    ("crictl.yaml", include_str!("../../templates/crictl.yaml.hbs")),
    ("encryption.yaml", include_str!("../../templates/encryption.yaml.hbs")),
    ("haproxy.cfg", include_str!("../../templates/haproxy.cfg.hbs")),
    ("kubelet.service", include_str!("../../templates/kubelet.service.hbs")),
    ("kubelet-prepare.sh", include_str!("../../templates/kubelet-prepare.sh.hbs")),
    ("local-images.sh", include_str!("../../templates/local-images.sh.hbs")),
    ("local-images.socket", include_str!("../../templates/local-images.socket.hbs")),
    ("local-images@.service", include_str!("../../templates/local-images@.service.hbs")),
    ("local-images.toml", include_str!("../../templates/local-images.toml.hbs")),
    ("modules.conf", include_str!("../../templates/modules.conf.hbs")),
    ("scope.conf", include_str!("../../templates/scope.conf.hbs")),
    ("shutdown.service", include_str!("../../templates/shutdown.service.hbs")),
    ("balancer.service", include_str!("../../templates/balancer.service.hbs")),
    ("reload-balancer.sh", include_str!("../../templates/reload-balancer.sh.hbs")),
    ("shutdown.sh", include_str!("../../templates/shutdown.sh.hbs")),
    ("snapshots.service", include_str!("../../templates/snapshots.service.hbs")),
    ("snapshots.timer", include_str!("../../templates/snapshots.timer.hbs")),
    ("static-pod.yaml", include_str!("../../templates/static-pod.yaml.hbs")),
    ("sysctl.conf", include_str!("../../templates/sysctl.conf.hbs")),
];

/// The engine with all templates in it.
pub(super) struct Templates(Handlebars<'static>);

impl Templates {
    /// Reads every template.
    ///
    /// # Errors
    /// Where one has a syntax error, which a test excludes.
    pub(super) fn load() -> Result<Self, RenderError> {
        let mut engine = Handlebars::new();
        engine.set_strict_mode(true);
        // The engine's own escaping is for HTML; the helpers below quote for each format.
        engine.register_escape_fn(handlebars::no_escape);
        engine.register_helper("q", Box::new(quoted));
        engine.register_helper("yaml", Box::new(block));
        engine.register_helper("word", Box::new(word));
        engine.register_helper("argument", Box::new(argument));
        for (name, text) in TEMPLATES {
            engine
                .register_template_string(name, text)
                .map_err(|error| RenderError::Template { template: (*name).to_owned(), why: error.to_string() })?;
        }
        Ok(Self(engine))
    }

    /// Fills `template` with `data`.
    pub(super) fn render(&self, template: &str, data: &Value) -> Result<String, RenderError> {
        self.0.render(template, data).map_err(|error| RenderError::Template {
            template: template.to_owned(),
            // The engine's text quotes the template, never the data.
            why: error.reason().to_string(),
        })
    }
}

fn parameter<'a>(helper: &'a Helper<'_>, name: &'static str) -> Result<&'a Value, RenderErrorReason> {
    let missing = || RenderErrorReason::ParamNotFoundForIndex(name, 0);
    let value = helper.param(0).ok_or_else(missing)?;
    if value.is_value_missing() { Err(missing()) } else { Ok(value.value()) }
}

/// `{{q value}}`: a scalar as YAML that reads back as exactly this scalar; text always stands in double quotes.
fn quoted(
    helper: &Helper<'_>,
    _: &Handlebars<'_>,
    _: &Context,
    _: &mut RenderContext<'_, '_>,
    out: &mut dyn Output,
) -> HelperResult {
    match parameter(helper, "q")? {
        Value::Array(_) | Value::Object(_) => {
            Err(RenderErrorReason::Other("{{q}} takes a scalar, {{yaml}} takes a structure".to_owned()).into())
        }
        scalar => Ok(out.write(&yaml::scalar(scalar))?),
    }
}

/// `{{yaml value indent}}`: a structure as block YAML, every line after the first indented by `indent`.
fn block(
    helper: &Helper<'_>,
    _: &Handlebars<'_>,
    _: &Context,
    _: &mut RenderContext<'_, '_>,
    out: &mut dyn Output,
) -> HelperResult {
    let indent = helper.param(1).and_then(|value| value.value().as_u64()).unwrap_or(0);
    let text = yaml::block(parameter(helper, "yaml")?);
    let margin = format!("\n{}", " ".repeat(usize::try_from(indent).unwrap_or(0)));
    Ok(out.write(&text.trim_end().replace('\n', &margin))?)
}

/// `{{word value}}`: text for a line-oriented format without quoting: refused unless it is one plain word.
fn word(
    helper: &Helper<'_>,
    _: &Handlebars<'_>,
    _: &Context,
    _: &mut RenderContext<'_, '_>,
    out: &mut dyn Output,
) -> HelperResult {
    let text = match parameter(helper, "word")? {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return Err(RenderErrorReason::Other("{{word}} takes text or a number".to_owned()).into()),
    };
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+@:=,[]".contains(&b));
    if plain {
        Ok(out.write(&text)?)
    } else {
        Err(RenderErrorReason::Other("{{word}} was given text that would need quoting".to_owned()).into())
    }
}

/// `{{argument value}}`: one argument of a systemd `ExecStart=` or one assignment of `Environment=`
/// (systemd.service(5), "Command lines"): double quotes with C escapes, `%` and `$` doubled.
fn argument(
    helper: &Helper<'_>,
    _: &Handlebars<'_>,
    _: &Context,
    _: &mut RenderContext<'_, '_>,
    out: &mut dyn Output,
) -> HelperResult {
    let Value::String(text) = parameter(helper, "argument")? else {
        return Err(RenderErrorReason::Other("{{argument}} takes text".to_owned()).into());
    };
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '%' => quoted.push_str("%%"),
            '$' => quoted.push_str("$$"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => {
                return Err(RenderErrorReason::Other("a control character in a unit's argument".to_owned()).into());
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    Ok(out.write(&quoted)?)
}
