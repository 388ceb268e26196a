//! Random transactions of eight clients under faults, checked against the log.

use quarr_tests::histories::{Report, Settings, run};

async fn run_seed(seed: u64, transactions: usize) -> Report {
    println!("seed {seed}, {transactions} transactions");
    let settings = Settings {
        seed,
        transactions,
        verifies_history: true,
    };
    let report = run(settings).await.unwrap();
    println!("{report:#?}");
    // Otherwise the rules held because nothing happened.
    assert!(report.acknowledged > transactions / 3);
    assert!(report.serializable > transactions / 10);
    assert!(report.rebased > transactions / 20);
    assert!(report.conflicts > transactions / 50);
    assert!(report.unknown > 0 && report.deaths > 0);
    report
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_doubled_invented_or_out_of_order() {
    run_seed(1, 1_500).await;
    run_seed(rand::random(), 500).await;
}

/// `QUARR_SEED` and `QUARR_TRANSACTIONS` choose another run.
#[tokio::test(start_paused = true)]
#[ignore = "long"]
async fn a_hundred_thousand_transactions() {
    let variable = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = variable("QUARR_SEED").unwrap_or_else(rand::random);
    let transactions = variable("QUARR_TRANSACTIONS").unwrap_or(100_000);
    run_seed(seed, transactions as usize).await;
}
