//! What may become of a template's count: for fleetd, which sets it, and for fleetctl, which checks
//! several before it changes any.

use crate::model::MAX_REPLICAS;
use crate::name::UnitName;
use crate::wire::Scale;

/// Why a count is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CountError {
    /// It is one unit.
    #[error("only a template can be scaled, and {0} is none: name it like \
        {prefix}@.{suffix}", prefix = .0.prefix(), suffix = .0.suffix())]
    NoTemplate(UnitName),
    /// Its machines say how many there are.
    #[error("{0} is Global: it runs once on every machine that fits, and has no count")]
    Global(UnitName),
    /// Below nought or above [`MAX_REPLICAS`].
    #[error("replicas would be {0}; expect 0 to {MAX_REPLICAS}")]
    OutOfRange(i64),
}

/// The count that `scale` makes of the one `before`, of a unit that is Global or not.
pub fn scaled(
    name: &UnitName,
    global: bool,
    before: u32,
    scale: &Scale,
) -> Result<u32, CountError> {
    if !name.is_template() {
        return Err(CountError::NoTemplate(name.clone()));
    }
    if global {
        return Err(CountError::Global(name.clone()));
    }
    let count = if scale.relative {
        i64::from(before).saturating_add(scale.replicas)
    } else {
        scale.replicas
    };
    u32::try_from(count)
        .ok()
        .filter(|count| *count <= MAX_REPLICAS)
        .ok_or(CountError::OutOfRange(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_stays_between_nought_and_the_limit_and_only_templates_have_one() {
        let (web, one) = (UnitName::trusted("web@.service"), UnitName::trusted("web.service"));
        let count = |name, global, replicas, relative| {
            scaled(name, global, 5, &Scale { replicas, relative })
                .map_err(|error| error.to_string())
        };
        assert_eq!((count(&web, false, 0, false), count(&web, false, -5, true)), (Ok(0), Ok(0)));
        assert_eq!(count(&web, false, i64::from(MAX_REPLICAS), false), Ok(MAX_REPLICAS));
        assert_eq!(
            count(&web, false, -6, true),
            Err("replicas would be -1; expect 0 to 1000000".to_string())
        );
        assert_eq!(
            count(&web, false, 999_996, true),
            Err("replicas would be 1000001; expect 0 to 1000000".to_string())
        );
        assert_eq!(
            count(&web, false, i64::MAX, true).unwrap_err(),
            format!("replicas would be {}; expect 0 to 1000000", i64::MAX)
        );
        assert_eq!(
            count(&one, false, 1, false),
            Err(
                "only a template can be scaled, and web.service is none: name it like web@.service"
                    .to_string()
            )
        );
        assert!(count(&web, true, 1, false).unwrap_err().starts_with("web@.service is Global: "));
    }
}
