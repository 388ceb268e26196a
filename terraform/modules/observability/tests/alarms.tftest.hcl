mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { region = "eu-central-1" }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "111122223333" }
  }
}

variables {
  metrics = { load_balancer = "app/quarr/1", target_group = "targetgroup/quarr/1", cluster = "quarr", service = "quarr" }
}

run "every_alarm_reaches_the_topic" {
  assert {
    condition     = alltrue([for alarm in concat(values(aws_cloudwatch_metric_alarm.this), [aws_cloudwatch_metric_alarm.errors]) : one(alarm.alarm_actions) == aws_sns_topic.alarms.arn])
    error_message = "an alarm reaches nobody"
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.this["no-task"].comparison_operator == "LessThanThreshold" && aws_cloudwatch_metric_alarm.this["no-task"].treat_missing_data == "breaching"
    error_message = "nobody hears that no task is left"
  }
  assert {
    condition     = alltrue([for alarm in local.alarms : can(alarm.statistic) != can(alarm.percentile) && can(alarm.above) != can(alarm.below)])
    error_message = "an alarm has two statistics or thresholds, or none"
  }
  assert {
    condition     = length(jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets) == 5
    error_message = "the dashboard leaves something out"
  }
}

run "latency_of_zero_is_refused" {
  command = plan
  variables {
    latency_s = 0
  }
  expect_failures = [var.latency_s]
}
