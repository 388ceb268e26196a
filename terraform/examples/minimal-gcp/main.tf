# A bucket, service accounts, and a service on Cloud Run that only the named members reach.

provider "google" {
  project = var.project_id
  region  = var.region
}

module "storage" {
  source = "../../modules/storage-gcp"

  bucket_name = var.bucket_name
  project_id  = var.project_id
  location    = var.region
}

module "identity" {
  source = "../../modules/identity-gcp"

  project_id  = var.project_id
  bucket_name = module.storage.bucket_name
}

module "service" {
  source = "../../modules/service-cloud-run"

  project_id = var.project_id
  region     = var.region
  image      = var.image
  store_url  = module.storage.store_url
  email      = module.identity.writer_email
  ingress    = "all"
  invokers   = var.invokers

  depends_on = [module.identity]
}
