locals {
  values = {
    image = var.image
    store = {
      url       = var.store_url
      awsRegion = var.region
    }
    auth           = { oidc = var.oidc }
    serviceAccount = { name = var.service_accounts.service }
    gc = {
      repositories   = var.gc_repositories
      serviceAccount = { name = var.service_accounts.gc }
    }
  }
}

# Pods of these service accounts are given short credentials of the roles. There are no keys.
resource "aws_eks_pod_identity_association" "this" {
  for_each = { for account, role in { service = var.role_arn, gc = var.gc_role_arn } : account => role if role != null }

  cluster_name    = var.cluster_name
  namespace       = var.namespace
  service_account = var.service_accounts[each.key]
  role_arn        = each.value
  tags            = var.tags
}

resource "helm_release" "this" {
  name             = var.name
  namespace        = var.namespace
  create_namespace = true
  chart            = coalesce(var.chart, "${path.module}/../../../deploy/helm/quarr")

  # A version that does not become ready gives way to the one before.
  atomic          = true
  cleanup_on_fail = true
  wait            = true
  timeout         = 600

  values = concat([yamlencode(local.values)], var.values)

  depends_on = [aws_eks_pod_identity_association.this]
}
