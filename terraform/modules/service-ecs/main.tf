data "aws_region" "current" {}
data "aws_caller_identity" "current" {}

locals {
  port = 8686

  environment = merge(
    {
      AWS_REGION         = data.aws_region.current.region
      QUARR_STORE        = var.store_url
      QUARR_LISTEN       = "0.0.0.0:${local.port}"
      QUARR_AUTH         = "true"
      QUARR_OPEN_METRICS = "false"
      QUARR_DRAIN_DELAY  = "5s"
      QUARR_CACHE_DIR    = "/var/cache/quarr"
      QUARR_CACHE_DISK   = "${var.cache_gib}GiB"
      QUARR_MEMORY_LIMIT = "${floor(var.memory_mib * 3 / 4)}MiB"
      TMPDIR             = "/var/cache/quarr"
    },
    { for name, value in { QUARR_OIDC_ISSUER = one(var.oidc[*].issuer), QUARR_OIDC_AUDIENCE = one(var.oidc[*].audience) } : name => value if value != null },
    var.environment,
  )

  # What the service and garbage collection have in common. Nothing of the image is written to: the
  # cache is a volume of the task.
  container = {
    name                   = "quarr"
    image                  = var.image
    essential              = true
    readonlyRootFilesystem = true
    user                   = "65532:65532"
    linuxParameters        = { initProcessEnabled = true, capabilities = { drop = ["ALL"] } }
    mountPoints            = [{ sourceVolume = "cache", containerPath = "/var/cache/quarr", readOnly = false }]
    environment            = [for name, value in local.environment : { name = name, value = value }]
    secrets                = [for name, arn in var.secrets : { name = name, valueFrom = arn }]
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.this.name
        awslogs-region        = data.aws_region.current.region
        awslogs-stream-prefix = "quarr"
      }
    }
  }

  service_container = merge(local.container, {
    command      = ["serve"]
    portMappings = [{ containerPort = local.port, protocol = "tcp" }]
    # Draining, then requests in flight: 30 s at most.
    stopTimeout = 60
    healthCheck = {
      command     = ["CMD", "/usr/local/bin/quarr-health"]
      interval    = 15
      timeout     = 5
      retries     = 3
      startPeriod = 30
    }
  })

  ecs_tasks = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ecs-tasks.amazonaws.com" }
      Action    = ["sts:AssumeRole"]
      Condition = { StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.current.account_id } }
    }]
  })
}

resource "aws_cloudwatch_log_group" "this" {
  #checkov:skip=CKV_AWS_158:a KMS key is a choice (`log_kms_key_arn`); without one the logs are encrypted with keys of AWS
  #checkov:skip=CKV_AWS_338:the default is a year; less is a choice
  name              = "/quarr/${var.name}"
  retention_in_days = var.log_days
  kms_key_id        = var.log_kms_key_arn
  tags              = var.tags
}

# --- Tasks ------------------------------------------------------------------------------------------

resource "aws_ecs_cluster" "this" {
  name = var.name
  tags = var.tags

  setting {
    name  = "containerInsights"
    value = "enabled"
  }
}

# Starts tasks: pulls the image, writes the log, reads the secrets that are named. The task itself has
# the role that it is given, not this one.
resource "aws_iam_role" "execution" {
  name                 = "${var.name}-execution"
  description          = "Quarr: starts tasks"
  assume_role_policy   = local.ecs_tasks
  permissions_boundary = var.permissions_boundary
  tags                 = var.tags
}

resource "aws_iam_role_policy" "execution" {
  name = "start-tasks"
  role = aws_iam_role.execution.name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [
        {
          Sid      = "WriteLog"
          Effect   = "Allow"
          Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
          Resource = ["${aws_cloudwatch_log_group.this.arn}:log-stream:quarr/*"]
        },
      ],
      flatten([for repository in var.ecr_repository_arn[*] : [
        {
          Sid      = "PullImage"
          Effect   = "Allow"
          Action   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
          Resource = [repository]
        },
        {
          # AWS has no narrower resource for this action.
          Sid      = "LogInToRegistry"
          Effect   = "Allow"
          Action   = ["ecr:GetAuthorizationToken"]
          Resource = ["*"]
        },
      ]]),
      length(var.secrets) == 0 ? [] : [{
        Sid      = "ReadSecrets"
        Effect   = "Allow"
        Action   = ["secretsmanager:GetSecretValue", "ssm:GetParameters"]
        Resource = distinct([for arn in values(var.secrets) : can(regex(":secretsmanager:", arn)) ? join(":", slice(split(":", arn), 0, 7)) : arn])
      }],
    )
  })
}

resource "aws_ecs_task_definition" "service" {
  family                   = var.name
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.cpu
  memory                   = var.memory_mib
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = var.role_arn
  container_definitions    = jsonencode([local.service_container])
  tags                     = var.tags

  runtime_platform {
    cpu_architecture        = var.architecture
    operating_system_family = "LINUX"
  }

  # The cache, and what the image itself takes; Fargate has 21 GiB or more.
  ephemeral_storage {
    size_in_gib = var.cache_gib + 20
  }

  volume {
    name = "cache"
  }
}

resource "aws_ecs_service" "this" {
  name                               = var.name
  cluster                            = aws_ecs_cluster.this.id
  task_definition                    = aws_ecs_task_definition.service.arn
  desired_count                      = var.tasks_min
  launch_type                        = "FARGATE"
  platform_version                   = "LATEST"
  availability_zone_rebalancing      = "ENABLED"
  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200
  health_check_grace_period_seconds  = 60
  enable_execute_command             = false
  propagate_tags                     = "SERVICE"
  tags                               = var.tags

  # A version that does not become healthy gives way to the one before.
  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets          = var.subnet_ids
    security_groups  = [aws_security_group.tasks.id]
    assign_public_ip = false
  }

  load_balancer {
    target_group_arn = aws_lb_target_group.this.arn
    container_name   = "quarr"
    container_port   = local.port
  }

  lifecycle {
    # Scaling sets it.
    ignore_changes = [desired_count]
  }

  depends_on = [aws_lb_listener.tls, aws_iam_role_policy.execution]
}

# --- Network ----------------------------------------------------------------------------------------

resource "aws_security_group" "tasks" {
  name        = "${var.name}-tasks"
  description = "Quarr tasks"
  vpc_id      = var.vpc_id
  tags        = var.tags
}

resource "aws_security_group" "load_balancer" {
  name        = "${var.name}-load-balancer"
  description = "Load balancer of Quarr"
  vpc_id      = var.vpc_id
  tags        = var.tags
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  for_each = toset(var.client_cidrs)

  security_group_id = aws_security_group.load_balancer.id
  description       = "Clients"
  cidr_ipv4         = each.value
  from_port         = 443
  to_port           = 443
  ip_protocol       = "tcp"
}

resource "aws_vpc_security_group_egress_rule" "to_tasks" {
  security_group_id            = aws_security_group.load_balancer.id
  description                  = "Tasks"
  referenced_security_group_id = aws_security_group.tasks.id
  from_port                    = local.port
  to_port                      = local.port
  ip_protocol                  = "tcp"
}

resource "aws_vpc_security_group_ingress_rule" "from_load_balancer" {
  security_group_id            = aws_security_group.tasks.id
  description                  = "Load balancer"
  referenced_security_group_id = aws_security_group.load_balancer.id
  from_port                    = local.port
  to_port                      = local.port
  ip_protocol                  = "tcp"
}

# S3, the registry, logs and secrets, by TLS. Where they are in the VPC, routes say.
resource "aws_vpc_security_group_egress_rule" "tls" {
  security_group_id = aws_security_group.tasks.id
  description       = "Services of AWS and the issuer of tokens, by TLS"
  cidr_ipv4         = "0.0.0.0/0"
  from_port         = 443
  to_port           = 443
  ip_protocol       = "tcp"
}

resource "aws_lb" "this" {
  #checkov:skip=CKV_AWS_91:an access log is a choice (`access_log_bucket`)
  #checkov:skip=CKV2_AWS_28:a web application firewall inspects pages and forms; requests here are authenticated, bounded and have no HTML
  name                       = var.name
  internal                   = var.internal
  load_balancer_type         = "application"
  security_groups            = [aws_security_group.load_balancer.id]
  subnets                    = coalesce(var.load_balancer_subnet_ids, var.subnet_ids)
  drop_invalid_header_fields = true
  enable_deletion_protection = true
  # Long reads send nothing while the first piece is decoded.
  idle_timeout = 300
  tags         = var.tags

  dynamic "access_logs" {
    for_each = var.access_log_bucket[*]

    content {
      bucket  = access_logs.value
      prefix  = var.name
      enabled = true
    }
  }
}

resource "aws_lb_target_group" "this" {
  #checkov:skip=CKV_AWS_378:between the load balancer and the tasks is the VPC's own network, which AWS encrypts between instances that can; TLS ends at the load balancer
  name                          = var.name
  port                          = local.port
  protocol                      = "HTTP"
  target_type                   = "ip"
  vpc_id                        = var.vpc_id
  deregistration_delay          = 60
  load_balancing_algorithm_type = "least_outstanding_requests"
  tags                          = var.tags

  health_check {
    path                = "/readyz"
    matcher             = "200"
    interval            = 10
    timeout             = 5
    healthy_threshold   = 2
    unhealthy_threshold = 3
  }
}

resource "aws_lb_listener" "tls" {
  load_balancer_arn = aws_lb.this.arn
  port              = 443
  protocol          = "HTTPS"
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  certificate_arn   = var.certificate_arn
  tags              = var.tags

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.this.arn
  }
}

# --- Scaling ----------------------------------------------------------------------------------------

resource "aws_appautoscaling_target" "this" {
  service_namespace  = "ecs"
  resource_id        = "service/${aws_ecs_cluster.this.name}/${aws_ecs_service.this.name}"
  scalable_dimension = "ecs:service:DesiredCount"
  min_capacity       = var.tasks_min
  max_capacity       = var.tasks_max
}

resource "aws_appautoscaling_policy" "this" {
  for_each = {
    cpu    = { metric = "ECSServiceAverageCPUUtilization", target = 60 }
    memory = { metric = "ECSServiceAverageMemoryUtilization", target = 75 }
  }

  name               = "${var.name}-${each.key}"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.this.service_namespace
  resource_id        = aws_appautoscaling_target.this.resource_id
  scalable_dimension = aws_appautoscaling_target.this.scalable_dimension

  target_tracking_scaling_policy_configuration {
    target_value       = each.value.target
    scale_in_cooldown  = 300
    scale_out_cooldown = 60

    predefined_metric_specification {
      predefined_metric_type = each.value.metric
    }
  }
}

# --- Garbage collection -----------------------------------------------------------------------------

resource "aws_ecs_task_definition" "gc" {
  for_each = toset(flatten([for gc in var.gc[*] : gc.repositories]))

  family                   = "${var.name}-gc-${replace(each.value, ".", "_")}"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = 1024
  memory                   = 4096
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = var.gc.role_arn
  container_definitions    = jsonencode([merge(local.container, { command = ["gc", each.value] })])
  tags                     = var.tags

  runtime_platform {
    cpu_architecture        = var.architecture
    operating_system_family = "LINUX"
  }

  ephemeral_storage {
    size_in_gib = var.cache_gib + 20
  }

  volume {
    name = "cache"
  }
}

resource "aws_iam_role" "scheduler" {
  for_each = { for name in ["gc"] : name => var.gc if var.gc != null }

  name                 = "${var.name}-scheduler"
  description          = "Quarr: starts garbage collection"
  permissions_boundary = var.permissions_boundary
  tags                 = var.tags
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "scheduler.amazonaws.com" }
      Action    = ["sts:AssumeRole"]
      Condition = { StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.current.account_id } }
    }]
  })
}

resource "aws_iam_role_policy" "scheduler" {
  for_each = aws_iam_role.scheduler

  name = "start-gc"
  role = each.value.name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "RunTask"
        Effect    = "Allow"
        Action    = ["ecs:RunTask"]
        Resource  = [for task in aws_ecs_task_definition.gc : task.arn]
        Condition = { ArnEquals = { "ecs:cluster" = aws_ecs_cluster.this.arn } }
      },
      {
        Sid       = "PassRoles"
        Effect    = "Allow"
        Action    = ["iam:PassRole"]
        Resource  = [aws_iam_role.execution.arn, var.gc.role_arn]
        Condition = { StringEquals = { "iam:PassedToService" = "ecs-tasks.amazonaws.com" } }
      },
    ]
  })
}

resource "aws_scheduler_schedule" "gc" {
  #checkov:skip=CKV_AWS_297:a schedule has the name of a repository and no data; keys of AWS encrypt it
  for_each = aws_ecs_task_definition.gc

  name                = each.value.family
  description         = "Collects garbage of the repository ${each.key}"
  schedule_expression = var.gc.schedule

  flexible_time_window {
    mode                      = "FLEXIBLE"
    maximum_window_in_minutes = 30
  }

  target {
    arn      = aws_ecs_cluster.this.arn
    role_arn = aws_iam_role.scheduler["gc"].arn

    ecs_parameters {
      task_definition_arn = each.value.arn
      launch_type         = "FARGATE"
      platform_version    = "LATEST"

      network_configuration {
        subnets          = var.subnet_ids
        security_groups  = [aws_security_group.tasks.id]
        assign_public_ip = false
      }
    }

    retry_policy {
      maximum_retry_attempts = 2
    }
  }
}
