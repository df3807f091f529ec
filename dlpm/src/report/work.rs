//! What the work that the user tells of cost: joules of a token, energy of a multiply-add, and the share of the machine's peak
//! that was reached.

use super::model::Model;
use crate::tables::record::Record;

/// FLOPs of a multiply-add, as makers of machines count them.
const FLOPS: f64 = 2.0;

/// What was done in the window, as the user says.
#[derive(Clone, Copy, Debug)]
pub struct Work<'a> {
    /// The model, if there is one.
    pub model: Option<&'a Model>,
    /// Inferences.
    pub inferences: Option<u64>,
    /// New tokens of a language model.
    pub tokens: Option<u64>,
    /// What the machine can do at most, in 10¹² floating-point operations a second.
    pub peak_tflops: Option<f64>,
}

impl Work<'_> {
    /// Multiply-adds of all tokens.
    fn of_tokens(&self) -> Option<f64> {
        Some(self.model?.mult_adds_per_token()? * self.tokens? as f64)
    }

    /// Multiply-adds of all that was done.
    fn mult_adds(&self) -> Option<f64> {
        let of_inferences = || Some(self.model?.total_mult_adds? as f64 * self.inferences? as f64);
        self.of_tokens().or_else(of_inferences)
    }

    /// Energy of a multiply-add of the tokens, in pJ.
    fn picojoules(&self, listed_uj: u128) -> Option<f64> {
        let mult_adds = self.of_tokens().filter(|mult_adds| *mult_adds > 0.0)?;
        Some(listed_uj as f64 * 1e6 / mult_adds)
    }

    /// The share of the machine's peak that was reached, from 0 to 1.
    fn peak_share(&self, duration_ns: u128) -> Option<f64> {
        let most = self.peak_tflops? * 1e12 * (duration_ns as f64 / 1e9);
        (most > 0.0).then_some(self.mult_adds()? * FLOPS / most)
    }

    fn bound(&self, word: &'static str) -> &'static str {
        if self.model.is_some_and(Model::is_lower_bound) {
            word
        } else {
            ""
        }
    }

    /// Lines for people; none where nothing was asked for.
    pub fn text(&self, listed_uj: Option<u128>, duration_ns: u128) -> String {
        let mut text = String::new();
        if let (Some(tokens), Some(listed_uj)) = (self.tokens, listed_uj) {
            text += &format!(
                "For each of {tokens} tokens: {:.6} J of the listed processes, all leaves",
                joules_per_token(listed_uj, tokens)
            );
            text += &match (self.picojoules(listed_uj), self.model.and_then(Model::context)) {
                (Some(picojoules), Some(context)) => format!(
                    "; {}{picojoules:.3} pJ for each multiply-add, an estimate: as if each were a new token in a context of \
                     {context}\n",
                    self.bound("at most ")
                ),
                _ => "\n".to_owned(),
            };
        }
        if let Some(peak) = self.peak_tflops {
            text += &match self.peak_share(duration_ns) {
                Some(share) => format!(
                    "Of a peak of {peak} TFLOP/s, as given: {}{:.3} % over the whole time, with 2 FLOPs for each multiply-add\n",
                    self.bound("at least "),
                    share * 100.0
                ),
                None => "The share of the peak is not known: it needs the multiply-adds of model_summary.json, and \
                    --inferences or, for a model of text that makes tokens, --tokens\n"
                    .to_owned(),
            };
        }
        text
    }

    /// The same in JSON; `None` where nothing was asked for.
    pub fn record(&self, listed_uj: Option<u128>, duration_ns: u128) -> Option<Record> {
        (self.tokens.is_some() || self.peak_tflops.is_some()).then(|| {
            let tokens = self.tokens.zip(listed_uj);
            Record::default()
                .with("tokens", self.tokens)
                .with(
                    "joules_per_token",
                    tokens.map(|(tokens, uj)| joules_per_token(uj, tokens)),
                )
                .with(
                    "pj_per_mac_of_tokens_estimate",
                    listed_uj.and_then(|uj| self.picojoules(uj)),
                )
                .with("peak_tflops", self.peak_tflops)
                .with("share_of_peak", self.peak_share(duration_ns))
                .with(
                    "mult_adds_are_a_lower_bound",
                    self.model.is_some_and(Model::is_lower_bound),
                )
        })
    }
}

fn joules_per_token(energy_uj: u128, tokens: u64) -> f64 {
    energy_uj as f64 / 1e6 / tokens as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(kind: &str) -> Model {
        let sweep = r#"[{"batch":2,"context":512}]"#;
        let text =
            format!(r#"{{"total_mult_adds":4000000,"dlpm":{{"language_model":{{"kind":"{kind}","sweep":{sweep}}}}}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn tokens_and_the_peak() {
        let decoder = model("decoder");
        let work = Work {
            model: Some(&decoder),
            inferences: None,
            tokens: Some(1000),
            peak_tflops: Some(0.001),
        };
        // 4 M multiply-adds are those of one token of each of 2 sequences: 8 J for 1000 tokens of 2 M.
        assert_eq!(work.picojoules(8_000_000), Some(4000.0));
        // 2e9 multiply-adds in 8 s, of 1e9 FLOP/s at most.
        assert_eq!(work.peak_share(8_000_000_000), Some(0.5));
        let text = work.text(Some(8_000_000), 8_000_000_000);
        assert!(text.contains("For each of 1000 tokens: 0.008000 J"), "{text}");
        assert!(
            text.contains("4000.000 pJ") && text.contains("context of 512"),
            "{text}"
        );
        assert!(text.contains("0.001 TFLOP/s, as given: 50.000 %"), "{text}");
        let record = work.record(Some(8_000_000), 8_000_000_000).unwrap();
        let json = serde_json::to_value(&record).unwrap();
        assert_eq!(json["joules_per_token"], 0.008);
        assert_eq!(json["share_of_peak"], 0.5);
        assert_eq!(decoder.unit(), "one new token of each sequence");
    }

    #[test]
    fn what_is_not_known_is_not_zero() {
        // An encoder makes no tokens: its operations are those of a whole prompt.
        let encoder = model("encoder");
        let work = Work {
            model: Some(&encoder),
            inferences: None,
            tokens: Some(1000),
            peak_tflops: Some(1.0),
        };
        assert_eq!((work.picojoules(1), work.peak_share(1)), (None, None));
        assert!(work.text(None, 1).contains("is not known"));
        assert_eq!(encoder.unit(), "one inference");
        let by_inference = Work {
            inferences: Some(500),
            ..work
        };
        assert_eq!(by_inference.peak_share(1_000_000_000), Some(0.004));
        let nothing = Work {
            tokens: None,
            peak_tflops: None,
            ..by_inference
        };
        assert!(nothing.text(Some(1), 1).is_empty() && nothing.record(Some(1), 1).is_none());
    }
}
