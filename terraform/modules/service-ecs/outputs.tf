output "url" {
  description = "Where the load balancer is. The certificate is for your own name: make it an alias of this one."
  value       = "https://${aws_lb.this.dns_name}"
}

output "load_balancer_arn" {
  description = "ARN of the load balancer."
  value       = aws_lb.this.arn
}

output "load_balancer_zone_id" {
  description = "Zone of the load balancer, for an alias record."
  value       = aws_lb.this.zone_id
}

output "cluster_name" {
  description = "Name of the ECS cluster."
  value       = aws_ecs_cluster.this.name
}

output "service_name" {
  description = "Name of the ECS service."
  value       = aws_ecs_service.this.name
}

output "log_group_name" {
  description = "Log group of the tasks."
  value       = aws_cloudwatch_log_group.this.name
}

output "metrics" {
  description = "What the alarms of the observability module watch."
  value = {
    load_balancer = aws_lb.this.arn_suffix
    target_group  = aws_lb_target_group.this.arn_suffix
    cluster       = aws_ecs_cluster.this.name
    service       = aws_ecs_service.this.name
  }
}
