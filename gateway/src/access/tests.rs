use super::*;

fn somebody(reach: Reach, department: &str, clearance: Clearance) -> Rights {
    Rights {
        reach,
        clearance,
        department: Some(department.into()),
        person: Some(format!("prn_{department}").into()),
        metrics: false,
        looks_only: false,
    }
}

const LEVELS: [Clearance; 4] = [
    Clearance::Public,
    Clearance::Internal,
    Clearance::Confidential,
    Clearance::Secret,
];

#[test]
fn no_grant_and_no_role_lifts_anybody_over_a_clearance() {
    for deployment in LEVELS {
        for own in LEVELS {
            let audience = Audience::of_department("it", deployment)
                .opened(true)
                .granted(vec!["prn_it".into()], vec!["it".into()]);
            for reach in [Reach::Named, Reach::Department, Reach::Everywhere] {
                let who = somebody(reach, "it", own);
                assert_eq!(
                    audience.admits(&who),
                    own >= deployment,
                    "{reach:?} {own:?} at {deployment:?}"
                );
            }
        }
    }
}

#[test]
fn another_department_needs_a_grant_or_an_open_deployment() {
    let sales = somebody(Reach::Department, "sales", Clearance::Internal);
    let closed = Audience::of_department("it", Clearance::Internal);
    assert!(!closed.admits(&sales));
    assert!(closed.admits(&somebody(Reach::Department, "it", Clearance::Internal)));
    assert!(closed.admits(&somebody(Reach::Everywhere, "sales", Clearance::Internal)));
    assert!(closed.clone().opened(true).admits(&sales));
    let to = |people: &[&str], departments: &[&str]| {
        let names = |list: &[&str]| list.iter().map(|it| Arc::from(*it)).collect();
        closed.clone().granted(names(people), names(departments))
    };
    assert!(to(&["prn_z", "prn_sales", "prn_a"], &[]).admits(&sales));
    assert!(to(&[], &["zoo", "sales", "hr"]).admits(&sales));
    assert!(!to(&["prn_hr"], &["hr"]).admits(&sales));
}

#[test]
fn an_annotator_uses_what_was_granted_by_name_only() {
    let who = somebody(Reach::Named, "it", Clearance::Internal);
    let own =
        Audience::of_department("it", Clearance::Public).granted(Vec::new(), vec!["it".into()]);
    assert!(!own.admits(&who));
    assert!(!own.clone().opened(true).admits(&who));
    assert!(!Audience::default().admits(&who));
    assert!(own.granted(vec!["prn_it".into()], Vec::new()).admits(&who));
}

#[test]
fn a_key_of_no_department_uses_what_is_open() {
    let nobody = Rights {
        clearance: Clearance::Internal,
        ..Rights::default()
    };
    assert!(Audience::default().admits(&nobody));
    assert!(!Audience::of_department("it", Clearance::Public).admits(&nobody));
    // A department that nobody named is no department that both share.
    assert!(Audience::to_all(Clearance::Internal).admits(&nobody));
    assert!(!Audience::to_all(Clearance::Secret).admits(&nobody));
}

#[test]
fn numbers_are_shown_to_the_department_and_to_none_without_a_key() {
    let secret = Audience::of_department("it", Clearance::Secret);
    let public = Rights {
        department: Some("it".into()),
        ..Rights::default()
    };
    assert!(secret.shows(Some(&public)) && !secret.admits(&public));
    assert!(!secret.shows(None));
    assert!(!secret.clone().opened(true).shows(None));
    assert!(Audience::default().shows(None));
    let scraper = Rights {
        metrics: true,
        ..Rights::default()
    };
    assert!(secret.shows(Some(&scraper)) && !secret.admits(&scraper));
    let annotator = Rights {
        reach: Reach::Named,
        ..public
    };
    assert!(!secret.shows(Some(&annotator)));
}
