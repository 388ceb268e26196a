mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { region = "eu-central-1" }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "111122223333" }
  }
}

variables {
  image           = "registry.example/quarr@sha256:0000000000000000000000000000000000000000000000000000000000000000"
  store_url       = "s3://quarr-example"
  role_arn        = "arn:aws:iam::111122223333:role/quarr-writer"
  vpc_id          = "vpc-1"
  subnet_ids      = ["subnet-1", "subnet-2"]
  client_cidrs    = ["10.0.0.0/8"]
  certificate_arn = "arn:aws:acm:eu-central-1:111122223333:certificate/1"
  oidc            = { issuer = "https://issuer.example", audience = "quarr" }
}

run "tasks_have_no_rights_they_do_not_need" {
  assert {
    condition = alltrue([
      jsondecode(aws_ecs_task_definition.service.container_definitions)[0].readonlyRootFilesystem,
      jsondecode(aws_ecs_task_definition.service.container_definitions)[0].user == "65532:65532",
      jsondecode(aws_ecs_task_definition.service.container_definitions)[0].linuxParameters.capabilities.drop == ["ALL"],
    ])
    error_message = "tasks are root, write to their image, or have capabilities"
  }
  assert {
    condition     = aws_ecs_task_definition.service.task_role_arn == var.role_arn && length(aws_ecs_task_definition.gc) == 0
    error_message = "the service has another role"
  }
  assert {
    condition     = aws_lb.this.internal && aws_ecs_service.this.network_configuration[0].assign_public_ip == false
    error_message = "the service has public addresses"
  }
  assert {
    condition     = aws_lb_listener.tls.protocol == "HTTPS" && aws_lb_listener.tls.port == 443
    error_message = "there is a way without TLS"
  }
}

run "the_service_is_told_of_its_store_and_issuer" {
  assert {
    condition = {
      for entry in jsondecode(aws_ecs_task_definition.service.container_definitions)[0].environment : entry.name => entry.value
      if startswith(entry.name, "QUARR_") || entry.name == "AWS_REGION"
      } == {
      AWS_REGION          = "eu-central-1"
      QUARR_STORE         = "s3://quarr-example"
      QUARR_LISTEN        = "0.0.0.0:8686"
      QUARR_AUTH          = "true"
      QUARR_OPEN_METRICS  = "false"
      QUARR_DRAIN_DELAY   = "5s"
      QUARR_CACHE_DIR     = "/var/cache/quarr"
      QUARR_CACHE_DISK    = "40GiB"
      QUARR_MEMORY_LIMIT  = "6144MiB"
      QUARR_OIDC_ISSUER   = "https://issuer.example"
      QUARR_OIDC_AUDIENCE = "quarr"
    }
    error_message = "the environment is another"
  }
}

run "garbage_is_collected_by_its_own_role" {
  variables {
    gc = { role_arn = "arn:aws:iam::111122223333:role/quarr-gc", repositories = ["climate", "ocean.v2"] }
  }
  assert {
    condition     = alltrue([for task in aws_ecs_task_definition.gc : task.task_role_arn == "arn:aws:iam::111122223333:role/quarr-gc"])
    error_message = "garbage is collected by the writer"
  }
  assert {
    condition     = jsondecode(aws_ecs_task_definition.gc["ocean.v2"].container_definitions)[0].command == ["gc", "ocean.v2"] && length(aws_scheduler_schedule.gc) == 2
    error_message = "a repository has no schedule"
  }
}

run "tags_of_images_are_refused" {
  command = plan
  variables {
    image = "registry.example/quarr:latest"
  }
  expect_failures = [var.image]
}

run "secrets_in_the_environment_are_refused" {
  command = plan
  variables {
    environment = { AWS_SECRET_ACCESS_KEY = "x" }
  }
  expect_failures = [var.environment]
}

run "fewer_at_most_than_at_least_is_refused" {
  command = plan
  variables {
    tasks_min = 4
    tasks_max = 3
  }
  expect_failures = [var.tasks_max]
}
