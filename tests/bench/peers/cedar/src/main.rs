//! cedar-peer POLICIES.cedar ENTITIES.json REQUESTS.tsv MILLISECONDS: what a decision costs Cedar,
//! its policies and entities parsed, and the requests made, before the clock starts.

use cedar_policy::{Authorizer, Context, Decision, Entities, EntityUid, PolicySet, Request};
use std::str::FromStr;
use std::time::Instant;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let read = |path: &str| std::fs::read_to_string(path).expect(path);
    let policies = PolicySet::from_str(&read(&args[1])).expect("policies");
    let entities = Entities::from_json_str(&read(&args[2]), None).expect("entities");
    let action = EntityUid::from_str(r#"Action::"call""#).unwrap();
    let resource = EntityUid::from_str(r#"Service::"acme/orders""#).unwrap();
    let requests: Vec<Request> = read(&args[3])
        .lines()
        .map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            let caller = EntityUid::from_str(&format!("Service::\"{}\"", fields[0])).unwrap();
            let context =
                Context::from_json_value(serde_json::json!({"method": fields[2]}), None).unwrap();
            Request::new(caller, action.clone(), resource.clone(), context, None).unwrap()
        })
        .collect();
    let authorizer = Authorizer::new();
    let bound = args[4].parse::<u128>().expect("milliseconds") * 1_000_000;
    let mut verdicts = String::new();
    let mut done: usize = 0;
    let start = Instant::now();
    // Some requests at least, however slow.
    while done < 20 || start.elapsed().as_nanos() < bound {
        let response =
            authorizer.is_authorized(&requests[done % requests.len()], &policies, &entities);
        if done < requests.len() {
            verdicts.push(if response.decision() == Decision::Allow { '1' } else { '0' });
        }
        done += 1;
    }
    let ns = start.elapsed().as_nanos() as f64 / done as f64;
    println!("{{\"ns\": {ns:.2}, \"verdicts\": \"{verdicts}\"}}");
}
