data "aws_region" "current" {}
data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}

# What the load balancer and ECS know of a service. Quarr's own metrics are for Prometheus; their alerts
# are in deploy/helm/quarr/alerts.yaml.
locals {
  of_targets = { LoadBalancer = var.metrics.load_balancer, TargetGroup = var.metrics.target_group }
  of_service = { ClusterName = var.metrics.cluster, ServiceName = var.metrics.service }

  alarms = {
    unhealthy = {
      description = "A task does not answer /readyz."
      namespace   = "AWS/ApplicationELB", metric = "UnHealthyHostCount", dimensions = local.of_targets
      statistic   = "Maximum", above = 0, minutes = 5
    }
    no-task = {
      description = "No task answers."
      namespace   = "AWS/ApplicationELB", metric = "HealthyHostCount", dimensions = local.of_targets
      statistic   = "Minimum", below = 1, minutes = 2
    }
    latency = {
      description = "The slowest of a hundred answers begin late."
      namespace   = "AWS/ApplicationELB", metric = "TargetResponseTime", dimensions = local.of_targets
      percentile  = "p99", above = var.latency_s, minutes = 10
    }
    cpu = {
      description = "Tasks compute all the time though scaling has had time."
      namespace   = "AWS/ECS", metric = "CPUUtilization", dimensions = local.of_service
      statistic   = "Average", above = 90, minutes = 20
    }
    memory = {
      description = "Tasks are near their limit of memory."
      namespace   = "AWS/ECS", metric = "MemoryUtilization", dimensions = local.of_service
      statistic   = "Maximum", above = 95, minutes = 5
    }
  }
}

resource "aws_kms_key" "alarms" {
  count = var.kms_key_arn == null ? 1 : 0

  description             = "Quarr: alarms"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  tags                    = var.tags
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        # Without it nobody could ever change the key.
        Sid       = "Account"
        Effect    = "Allow"
        Principal = { AWS = "arn:${data.aws_partition.current.partition}:iam::${data.aws_caller_identity.current.account_id}:root" }
        Action    = ["kms:*"]
        Resource  = ["*"]
      },
      {
        Sid       = "Alarms"
        Effect    = "Allow"
        Principal = { Service = "cloudwatch.amazonaws.com" }
        Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
        Resource  = ["*"]
        Condition = { StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.current.account_id } }
      },
    ]
  })
}

resource "aws_sns_topic" "alarms" {
  name              = "${var.name}-alarms"
  kms_master_key_id = var.kms_key_arn == null ? aws_kms_key.alarms[0].arn : var.kms_key_arn
  tags              = var.tags
}

resource "aws_sns_topic_policy" "alarms" {
  arn = aws_sns_topic.alarms.arn
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "Alarms"
      Effect    = "Allow"
      Principal = { Service = "cloudwatch.amazonaws.com" }
      Action    = ["sns:Publish"]
      Resource  = [aws_sns_topic.alarms.arn]
      Condition = { StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.current.account_id } }
    }]
  })
}

resource "aws_sns_topic_subscription" "emails" {
  for_each = toset(var.emails)

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.value
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = try(each.value.statistic, null)
  extended_statistic  = try(each.value.percentile, null)
  comparison_operator = can(each.value.below) ? "LessThanThreshold" : "GreaterThanThreshold"
  threshold           = try(each.value.below, each.value.above)
  period              = 60
  evaluation_periods  = each.value.minutes
  # No host is no number, which is the worst of it.
  treat_missing_data = each.key == "no-task" ? "breaching" : "notBreaching"
  alarm_actions      = [aws_sns_topic.alarms.arn]
  ok_actions         = [aws_sns_topic.alarms.arn]
  tags               = var.tags

  depends_on = [aws_sns_topic_policy.alarms]
}

resource "aws_cloudwatch_metric_alarm" "errors" {
  alarm_name          = "${var.name}-errors"
  alarm_description   = "More answers are errors of the server than should be."
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.error_percent
  evaluation_periods  = 5
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
  tags                = var.tags

  metric_query {
    id          = "percent"
    expression  = "IF(requests > 0, 100 * FILL(errors, 0) / requests, 0)"
    label       = "Errors of a hundred answers"
    return_data = true
  }

  dynamic "metric_query" {
    for_each = { errors = "HTTPCode_Target_5XX_Count", requests = "RequestCount" }

    content {
      id = metric_query.key

      metric {
        namespace   = "AWS/ApplicationELB"
        metric_name = metric_query.value
        dimensions  = local.of_targets
        period      = 60
        stat        = "Sum"
      }
    }
  }

  depends_on = [aws_sns_topic_policy.alarms]
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = var.name
  dashboard_body = jsonencode({
    widgets = [for place, name in sort(keys(local.alarms)) : {
      type   = "metric"
      x      = 8 * (place % 3)
      y      = 6 * floor(place / 3)
      width  = 8
      height = 6
      properties = {
        title  = local.alarms[name].description
        region = data.aws_region.current.region
        period = 60
        stat   = try(local.alarms[name].percentile, local.alarms[name].statistic)
        metrics = [concat(
          [local.alarms[name].namespace, local.alarms[name].metric],
          flatten([for key, value in local.alarms[name].dimensions : [key, value]]),
        )]
      }
    }]
  })
}
