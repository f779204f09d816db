//! Whom an exchange cuts off outside of the cluster, where nobody can be restarted: people, webhooks, and whoever verifies tokens.

use std::collections::BTreeSet;

use crate::api::Api;
use crate::model::Blobs;
use crate::model::Desired;
use crate::ops::OpsError;
use crate::ops::exchange::walk::Next;
use crate::ops::flags;
use crate::ops::prepare::Prepared;
use crate::route::ExchangeLeg;
use crate::secrets::AuthorityName;

/// People and webhooks that stop working with the last leg of an exchange of these authorities.
pub(super) async fn cut_off(
    api: &Api,
    prepared: &Prepared,
    next: &Next,
    names: &BTreeSet<AuthorityName>,
) -> Result<Vec<String>, OpsError> {
    if !names.contains(&AuthorityName::Kubernetes) {
        return Ok(Vec::new());
    }
    let set = next.was.authorities.get(&AuthorityName::Kubernetes);
    let old =
        set.and_then(|set| set.other.as_ref()).map(|other| other.certificate.trim().to_owned()).unwrap_or_default();
    let new = set.map(|set| set.certificate.trim().to_owned()).unwrap_or_default();
    let new_ones = if prepared.target.secrets.external().contains(&AuthorityName::Kubernetes) {
        "the new authority has to sign new ones"
    } else {
        "`bastide kubeconfig` makes new ones"
    };
    let mut notes = vec![format!(
        "kubeconfigs and client certificates that were made before this exchange stop working, copies of admin.conf too; {new_ones}"
    )];
    let users = api.users().await?;
    if !users.is_empty() {
        let users: Vec<_> = users.into_iter().collect();
        notes.push(format!(
            "users whom roles are bound to, and who may come with such a certificate: {}",
            users.join(", ")
        ));
    }
    let bundled = api.bundled_trust().await?;
    let cut_off =
        bundled.iter().filter(|one| !old.is_empty() && one.bundle.contains(&old) && !one.bundle.contains(&new));
    let words = |object: &str| {
        format!("{object} verifies what it calls against the old authority alone (caBundle), and may stop working")
    };
    notes.extend(cut_off.map(|one| words(&one.object)));
    Ok(notes)
}

/// What whoever verifies this cluster's tokens by its published keys has to know of a leg, with where these are published.
pub(super) fn verifiers(leg: ExchangeLeg, desired: &Desired, blobs: &Blobs) -> String {
    let told =
        |flag| -> BTreeSet<String> { flags::of_api_servers(desired, blobs, flag).into_iter().flatten().collect() };
    let at = |(what, values): (&str, BTreeSet<String>)| {
        let values: Vec<_> = values.into_iter().collect();
        (!values.is_empty()).then(|| format!(", {what} {}", values.join(", ")))
    };
    let places = [("issuer", told("service-account-issuer")), ("keys at", told("service-account-jwks-uri"))];
    let places: String = places.into_iter().filter_map(at).collect();
    let what = match leg {
        ExchangeLeg::Accept => {
            "has to read them anew after this leg and before the next, from which on tokens are signed with the new one"
        }
        ExchangeLeg::Issue => {
            "must have read them anew since the leg before: from this leg on tokens are signed with the new one"
        }
        ExchangeLeg::Drop => "has to read them anew after this leg: the old one is published no more",
    };
    format!("whoever verifies this cluster's tokens by its published keys (/openid/v1/jwks{places}) {what}")
}

#[cfg(test)]
mod tests {
    use super::verifiers;
    use crate::render::tests::support;
    use crate::route::ExchangeLeg;

    #[test]
    fn who_verifies_tokens_is_told_in_time_and_by_the_address_that_they_know() {
        let flags = "services: {kube-api: {extra_args: {service-account-jwks-uri: 'https://keys.example.com/jwks'}}}\n";
        let text = format!("{flags}{}", support::ONE_HOST);
        let rendered = support::rendered(&text);
        let words = |leg| verifiers(leg, &rendered.desired, &rendered.blobs);
        for leg in [ExchangeLeg::Accept, ExchangeLeg::Issue, ExchangeLeg::Drop] {
            let said = words(leg);
            for part in
                ["/openid/v1/jwks", "issuer https://kubernetes.default.svc", "keys at https://keys.example.com/jwks"]
            {
                assert!(said.contains(part), "{part}: {said}");
            }
        }
        assert!(words(ExchangeLeg::Accept).contains("before the next"));
        assert!(words(ExchangeLeg::Issue).contains("must have read them anew"));
    }
}
